"""What a memory group allows, holds and has seen, on a recorded tree of each kind and on a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cgroups import memory_group, run_in_group
from tests.memory.trees import GIB, KINDS, MIB, NO_LIMIT_V1, Kind, mounted_v1, mounted_v2, rows, v1, v2, write

from caudal.memory import cgroup, cgroup_places

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@kinds
def test_the_limit_is_the_least_on_the_way_up_and_its_level_is_named(kind: Kind, tmp_path: Path) -> None:
    group = cgroup.read(write(tmp_path, kind.files))
    assert (group.version, group.limit, group.exact) == (kind.version, kind.limit, kind.exact)
    assert (group.limiting and group.limiting.name) == kind.limiting


@kinds
def test_charged_is_what_processes_took_and_never_page_cache(kind: Kind, tmp_path: Path) -> None:
    assert cgroup.read(write(tmp_path, kind.files)).charged == kind.charged


@kinds
def test_kills_are_counted_in_the_group_that_counts_this_process(kind: Kind, tmp_path: Path) -> None:
    assert cgroup.read(write(tmp_path, kind.files)).oom_kills == kind.oom_kills


@kinds
def test_the_room_is_what_the_fullest_level_leaves_neighbours_counted(kind: Kind, tmp_path: Path) -> None:
    assert cgroup.read(write(tmp_path, kind.files)).room == kind.room


LIMITS = st.none() | st.integers(MIB, 64 * GIB)


@given(
    version=st.sampled_from([1, 2]),
    levels=st.lists(st.tuples(LIMITS, LIMITS), min_size=1, max_size=6),
    shown=st.integers(0, 5),
)
def test_the_limit_is_never_above_any_limit_on_the_way_up(
    version: int,
    levels: list[tuple[int | None, int | None]],
    shown: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`levels` from the top down, of which a container shows those from number `shown` on."""
    names = ["", *(f"/{'/'.join('abcdef'[: depth + 1])}" for depth in range(len(levels) - 1))]
    top = names[min(shown, len(names) - 1)]
    root = tmp_path_factory.mktemp("tree")
    place = "sys/fs/cgroup/memory" if version == 1 else "sys/fs/cgroup"
    files: dict[str, object] = {f"{place}/cgroup.controllers": "memory"}
    bounds: list[int] = []
    for name, (most, high) in zip(names, levels, strict=True):
        visible = name.startswith(top)
        if version == 1 or visible:  # v1 tells the least of what is hidden; in v2 nobody can know it
            bounds += [limit for limit in (most, high if version == 2 else None) if limit is not None]
        if visible and version == 1:
            least = {"least": min(bounds)} if bounds else {}
            files |= v1(place + name.removeprefix(top), NO_LIMIT_V1 if most is None else most, **least)
        elif visible:
            limits = ["max" if limit is None else limit for limit in (most, high)]
            files |= v2(place + name.removeprefix(top), limits[0], high=limits[1])
    mounted = mounted_v1 if version == 1 else mounted_v2
    files["proc/self/mountinfo"] = mounted(top or "/", f"/{place}")
    files["proc/self/cgroup"] = f"{'4:memory' if version == 1 else '0:'}:{names[-1] or '/'}"
    group = cgroup.read(write(root, files))
    assert group.version == version
    assert group.limit == min(bounds, default=None)


def test_what_is_held_is_all_but_clean_page_cache_and_what_the_kernel_gives_back(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cgroup.controllers": "memory",
        **v2("sys/fs/cgroup", GIB, anon=100, shmem=20, file=500, dirty=40, kernel=9, slabs=5, swap=7),
    }
    charge = cgroup.read(write(tmp_path, files)).charge
    assert charge is not None
    assert (charge.charged, charge.dirty, charge.kernel, charge.swap) == (120, 40, 9, 7)
    assert (charge.usage, charge.reclaimable, charge.held) == (629, 465, 164)


def test_old_v1_kernels_that_do_not_tell_shared_pages_have_them_charged(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/",
        "sys/fs/cgroup/memory/memory.stat": rows(
            total_rss=300, total_inactive_anon=250, total_active_anon=94
        ),
    }
    assert cgroup.read(write(tmp_path, files)).charged == 344


def test_kills_of_groups_below_are_told_apart_where_the_kernel_does(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cgroup.controllers": "memory",
        **v2("sys/fs/cgroup", GIB, kills=5, kills_here=2),
    }
    group = cgroup.read(write(tmp_path, files))
    assert (group.oom_kills, group.oom_kills_here) == (5, 2)


def test_swap_is_what_the_least_level_allows(tmp_path: Path) -> None:
    second = {
        "proc/self/cgroup": "0::/a",
        "sys/fs/cgroup/cgroup.controllers": "memory",
        **v2("sys/fs/cgroup", swap_limit=GIB),
        **v2("sys/fs/cgroup/a", swap_limit=0),
    }
    assert cgroup.read(write(tmp_path / "v2", second)).swap_limit == 0
    first = {"proc/self/cgroup": "4:memory:/", **v1("sys/fs/cgroup/memory", GIB, with_swap=3 * GIB)}
    assert cgroup.read(write(tmp_path / "v1", first)).swap_limit == 2 * GIB


def test_how_the_kernel_kills_here_is_known(tmp_path: Path) -> None:
    pod = cgroup.read(write(tmp_path / "pod", KINDS["kubernetes, burstable, v2, the node's view"].files))
    assert (pod.kills_together, pod.kills_off) == (True, False)
    files = {"proc/self/cgroup": "4:memory:/", **v1("sys/fs/cgroup/memory", GIB, killer_off=1)}
    stopped = cgroup.read(write(tmp_path / "off", files))
    assert (stopped.kills_together, stopped.kills_off) == (False, True)


def test_a_second_mount_that_shows_more_of_the_tree_is_the_one_that_is_read(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/ab",
        "proc/self/mountinfo": mounted_v2("/pod/ab") + mounted_v2(point="/host/cgroup"),
        "sys/fs/cgroup/cgroup.controllers": "memory",
        "host/cgroup/cgroup.controllers": "memory",
        **v2("sys/fs/cgroup", 4 * GIB),
        **v2("host/cgroup/pod", GIB),
        **v2("host/cgroup/pod/ab", 4 * GIB),
    }
    assert cgroup.read(write(tmp_path, files)).limit == GIB


def test_a_group_that_has_been_found_is_read_again_without_looking_for_it(tmp_path: Path) -> None:
    kind = KINDS["docker, v2, own namespace"]
    root = write(tmp_path, kind.files)
    place = cgroup_places.find(root).memory
    (root / "proc/self/mountinfo").unlink()
    (root / "proc/self/cgroup").unlink()
    assert cgroup.look(place).limit == kind.limit


CHILD = """
import json, mmap, os, sys
from caudal.memory import cgroup, limits
from caudal.memory.meters import charged_bytes

def look():
    group = cgroup.read()
    return {"limit": group.limit, "charged": group.charged, "usage": group.charge.usage, "room": group.room,
            "tree": charged_bytes(), "kills": group.oom_kills}

before = look()
path = sys.argv[1]
with open(path, "wb") as file:
    file.write(os.urandom(1 << 20) * 48)
    os.fsync(file.fileno())
with open(path, "rb") as file:
    while file.read(1 << 20):
        pass
cached = look()
region = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
shared = mmap.mmap(-1, 16 << 20)
for part in (region, shared):
    for offset in range(0, len(part), mmap.PAGESIZE):
        part[offset] = 1
print(json.dumps([before, cached, look()]))
"""


@pytest.mark.cgroup
def test_a_real_group_is_seen_from_inside_to_3_mib_and_its_clean_page_cache_is_not_charged(
    tmp_path: Path,
) -> None:
    ended = run_in_group([sys.executable, "-c", CHILD, str(tmp_path / "file")], 200 * MIB)
    assert ended.returncode == 0, ended.output
    before, cached, touched = json.loads(ended.output.splitlines()[-1])
    for look in (before, cached, touched):
        assert (look["limit"], look["kills"]) == (200 * MIB, 0)
        assert abs(look["charged"] - look["tree"]) < 3 * MIB
    assert abs(cached["charged"] - before["charged"]) < 3 * MIB
    assert cached["usage"] - before["usage"] > 40 * MIB
    assert abs(cached["room"] - before["room"]) < 6 * MIB  # the file system keeps notes of its own
    assert abs(touched["charged"] - cached["charged"] - 80 * MIB) < 3 * MIB
    assert abs(cached["room"] - touched["room"] - 80 * MIB) < 6 * MIB


@pytest.mark.cgroup
def test_a_lower_limit_above_a_real_group_counts() -> None:
    with memory_group(100 * MIB) as outer:
        inner = outer / "inner"
        inner.mkdir()
        code = (
            f"import pathlib; pathlib.Path({str(inner / 'cgroup.procs')!r}).write_text('0');"
            "from caudal.memory import cgroup; g = cgroup.read(); print(int(g.limit), g.limiting.name)"
        )
        try:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        finally:
            inner.rmdir()
    limit, name = done.stdout.split()
    assert int(limit) == 100 * MIB
    assert name.endswith(outer.name)
