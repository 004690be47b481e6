"""Limits, swap, settings and shared memory: what bears on a process, and what is left under it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.memory.trees import GIB, KINDS, MIB, meminfo, ulimits, v2, write

from caudal.core.errors import UsageError
from caudal.core.units import Bytes
from caudal.memory import kernel, limits, rlimits, shared_memory
from caudal.runs.machine import ram_budget

SIZES = st.none() | st.integers(64 * MIB, 16 * GIB).map(lambda n: n // 4096 * 4096)


@given(address=SIZES, data=SIZES, group=SIZES, strict=st.booleans())
def test_what_is_available_is_never_more_than_any_limit_leaves(
    address: int | None,
    data: int | None,
    group: int | None,
    strict: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = write(
        tmp_path_factory.mktemp("tree"),
        {
            "proc/self/cgroup": "0::/",
            "proc/self/limits": ulimits(
                **({} if address is None else {"address_space": address}),
                **({} if data is None else {"data_size": data}),
            ),
            "proc/self/status": f"Name: x\nVmSize:  {40 * 1024} kB\nVmData:  {20 * 1024} kB",
            "proc/meminfo": meminfo(8 * GIB, 4 * GIB, CommitLimit=6 * GIB, Committed_AS=3 * GIB),
            "proc/sys/vm/overcommit_memory": 2 if strict else 0,
            "sys/fs/cgroup/cgroup.controllers": "memory",
            **v2("sys/fs/cgroup", "max" if group is None else group, anon=10 * MIB),
        },
    )
    left = [4 * GIB]
    left += [] if address is None else [address - 40 * MIB]
    left += [] if data is None else [data - 20 * MIB]
    left += [] if group is None else [group - 10 * MIB]
    left += [3 * GIB] if strict else []
    assert limits.available_ram(root) == min(left)
    # Of the machine half is held by others, and half of what may be promised; the group's 10 MiB are too few.
    step = None if group is None else group // 32
    small = None if group is None or step is None else group - 10 * MIB // step * step
    every = [4 * GIB, address, data, small, 3 * GIB if strict else None]
    assert ram_budget(None, root) == int(min(limit for limit in every if limit is not None) * 0.8)


@given(others=st.integers(0, 5 * GIB), own=st.integers(0, GIB), cache=st.integers(0, GIB))
def test_the_default_budget_is_of_what_neighbours_leave_and_clean_cache_is_no_neighbour(
    others: int, own: int, cache: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = write(
        tmp_path_factory.mktemp("tree"),
        {
            f"proc/{os.getpid()}/status": f"Name: x\nRssAnon: {own // 1024} kB\nRssShmem: 0 kB",
            f"proc/{os.getpid()}/task/{os.getpid()}/children": "",
            "proc/self/cgroup": "0::/",
            "proc/meminfo": meminfo(64 * GIB, 60 * GIB),
            "sys/fs/cgroup/cgroup.controllers": "memory",
            **v2("sys/fs/cgroup", 4 * GIB, anon=own + others, file=cache),
        },
    )
    left = max(0, 4 * GIB - others)
    found = int(ram_budget(None, root))
    assert found <= 0.8 * left + 0.8 * 4 * GIB / 32
    assert found >= 0.8 * left - 4096
    if others < 4 * GIB // 32 - 4096:
        assert found == int(4 * GIB * 0.8)


def test_the_neighbours_in_a_group_above_leave_less_to_take(tmp_path: Path) -> None:
    kind = KINDS["kubernetes, burstable, v2, the node's view"]
    root = write(tmp_path, kind.files | {"proc/meminfo": meminfo(64 * GIB, 50 * GIB)})
    assert limits.available_ram(root) == kind.room
    assert [limit.name for limit in limits.ram_limits(root)][:4] == [
        "machine",
        "cgroup v2 /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice",
        "cgroup v2 /kubepods.slice",
        "rlimit address space",
    ]


def test_a_machine_that_tells_nothing_is_said_to(tmp_path: Path) -> None:
    assert shared_memory.read(tmp_path) is None
    assert rlimits.read(tmp_path) is None
    assert limits.swap(tmp_path) is None
    assert kernel.read(tmp_path) == kernel.Settings(None, None, None, None, None)
    with pytest.raises(RuntimeError):
        limits.available_ram(tmp_path)
    with pytest.raises(UsageError, match="No meter"):
        ram_budget(None, tmp_path)
    assert ram_budget(Bytes(GIB), tmp_path) == GIB


def test_swap_is_the_groups_own_where_it_is_counted_and_else_the_machines(tmp_path: Path) -> None:
    info = meminfo(8 * GIB, 4 * GIB, SwapTotal=2 * GIB, SwapFree=GIB)
    group = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cgroup.controllers": "memory"}
    inside = group | v2("sys/fs/cgroup", swap_limit=512 * MIB, swap=5 * MIB)
    root = write(tmp_path / "group", inside | {"proc/meminfo": info})
    assert limits.swap(root) == limits.Swap(Bytes(512 * MIB), Bytes(5 * MIB))
    alone = write(tmp_path / "alone", {"proc/meminfo": info})
    assert limits.swap(alone) == limits.Swap(Bytes(2 * GIB), Bytes(GIB))


def test_settings_of_the_kernel_are_read(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": meminfo(8 * GIB, 4 * GIB, CommitLimit=6 * GIB, Committed_AS=GIB),
            "proc/sys/vm/overcommit_memory": 1,
            "proc/sys/vm/max_map_count": 262144,
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        },
    )
    assert kernel.read(root) == kernel.Settings(1, Bytes(6 * GIB), Bytes(GIB), 262144, "madvise")


def test_limits_of_the_process_are_what_it_was_given(tmp_path: Path) -> None:
    found = rlimits.read(write(tmp_path, {"proc/self/limits": ulimits(address_space=GIB)}))
    assert found is not None
    assert (found.address_space, found.data) == (rlimits.Rlimit(GIB, None), rlimits.Rlimit(None, None))
    assert (found.files, found.tasks.soft, found.locked.soft) == (
        rlimits.Rlimit(1024, 524288), 96365, 8 * MIB,
    )  # fmt: skip
    program = """
import json, resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 4 << 30))
from caudal.memory import limits, rlimits
print(json.dumps([rlimits.read().address_space.soft, rlimits.read().address_space.hard,
                  rlimits._asked() == rlimits.read(), limits.available_ram() < 3 << 30]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [3 * GIB, 4 * GIB, True, True]


def test_limits_are_asked_of_the_system_where_proc_does_not_list_them() -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert rlimits._asked() == rlimits.read(Path("/"))
    assert rlimits._asked().files.soft == soft


def test_what_lies_in_shared_memory_is_counted(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/shm").symlink_to(small_disk)
    empty = shared_memory.read(tmp_path)
    (small_disk / "left-behind").write_bytes(os.urandom(MIB))
    found = shared_memory.read(tmp_path)
    assert empty is not None
    assert found is not None
    assert (empty.size, empty.used, empty.free) == (3 * MIB, 0, 3 * MIB)
    assert (found.size, found.used, found.free) == (3 * MIB, MIB, 2 * MIB)
