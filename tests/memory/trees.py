"""Recorded trees of control groups, one of each kind, written from small tables below a test's own folder.

Each is what the kernel shows a process in that place: its groups, what is mounted, and the groups' files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
GIB = 2**30
NO_LIMIT_V1 = 9223372036854771712


def write(root: Path, files: Mapping[str, object]) -> Path:
    """`files` below `root`; values are written as they print."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = str(content)
        path.write_text(text if text.endswith("\n") else text + "\n")
    return root


def rows(**values: int) -> str:
    """A table as in `memory.stat`."""
    return "".join(f"{key} {value}\n" for key, value in values.items())


def mounted_v1(inside: str = "/", point: str = "/sys/fs/cgroup/memory") -> str:
    return f"35 31 0:32 {inside} {point} rw,relatime shared:15 - cgroup cgroup rw,memory\n"


def mounted_v2(inside: str = "/", point: str = "/sys/fs/cgroup") -> str:
    return f"30 24 0:27 {inside} {point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def v1(
    folder: str,
    limit: int = NO_LIMIT_V1,
    *,
    rss: int = 0,
    shmem: int = 0,
    file: int = 0,
    dirty: int = 0,
    kernel: int = 0,
    least: int | None = None,
    kills: int = 0,
    with_swap: int = NO_LIMIT_V1,
    swap: int = 0,
    killer_off: int = 0,
    counts_below: int = 1,
) -> dict[str, object]:
    """A v1 group; `least` is the kernel's own smallest limit, `file` the page cache with what is dirty."""
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.memsw.limit_in_bytes": with_swap,
        f"{folder}/memory.usage_in_bytes": rss + shmem + file + kernel,
        f"{folder}/memory.kmem.usage_in_bytes": kernel,
        f"{folder}/memory.use_hierarchy": counts_below,
        f"{folder}/memory.oom_control": rows(oom_kill_disable=killer_off, under_oom=0, oom_kill=kills),
        f"{folder}/memory.stat": rows(
            cache=file,
            rss=rss // 2,  # of this group without those below it: not what is limited
            hierarchical_memory_limit=limit if least is None else least,
            total_cache=file + shmem,
            total_rss=rss,
            total_shmem=shmem,
            total_dirty=dirty,
            total_writeback=0,
            total_swap=swap,
            total_inactive_file=file // 2,
            total_active_file=file - file // 2,
        ),
    }


def v2(
    folder: str,
    limit: int | str = "max",
    *,
    high: int | str = "max",
    anon: int = 0,
    shmem: int = 0,
    file: int = 0,
    dirty: int = 0,
    kernel: int = 0,
    slabs: int = 0,
    kills: int = 0,
    kills_here: int | None = None,
    throttled: int = 0,
    swap_limit: int | str = "max",
    swap: int = 0,
    together: int = 0,
) -> dict[str, object]:
    """A v2 group with the memory controller; `slabs` are the part of `kernel` that can be taken back."""
    events = {"low": 0, "high": throttled, "max": 0, "oom": kills, "oom_group_kill": 0}
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.high": high,
        f"{folder}/memory.current": anon + shmem + file + kernel,
        f"{folder}/memory.swap.max": swap_limit,
        f"{folder}/memory.swap.current": swap,
        f"{folder}/memory.oom.group": together,
        f"{folder}/memory.events": rows(**events, oom_kill=kills),
        f"{folder}/memory.events.local": rows(oom_kill=kills if kills_here is None else kills_here),
        f"{folder}/memory.stat": rows(
            anon=anon,
            file=file + shmem,
            kernel=kernel,
            shmem=shmem,
            file_dirty=dirty,
            file_writeback=0,
            inactive_file=file // 2,
            active_file=file - file // 2,
            slab_reclaimable=slabs,
        ),
    }


UNLIMITED = {
    "Max data size": "unlimited            unlimited            bytes",
    "Max resident set": "unlimited            unlimited            bytes",
    "Max processes": "96365                96365                processes",
    "Max open files": "1024                 524288               files",
    "Max locked memory": "8388608              8388608              bytes",
    "Max address space": "unlimited            unlimited            bytes",
}


def ulimits(**values: int) -> str:
    """`/proc/self/limits` with some soft limits set: `data_size=5`."""
    table = UNLIMITED | {
        f"Max {name.replace('_', ' ')}": f"{n}   unlimited   units" for name, n in values.items()
    }
    head = "Limit                     Soft Limit           Hard Limit           Units"
    return "\n".join([head, *(f"{name:<25} {text}" for name, text in table.items())])


def meminfo(total: int, available: int, **more: int) -> str:
    sizes = {"MemTotal": total, "MemAvailable": available} | more
    return "\n".join(f"{name}:  {size // 1024} kB" for name, size in sizes.items()) + "\nHugePages_Total: 0"


@dataclass(frozen=True)
class Kind:
    """A tree, and what is true of it. `room` counts the neighbours, and what cannot be taken back."""

    files: dict[str, object]
    version: int
    limit: int | None
    limiting: str | None
    charged: int | None
    oom_kills: int | None
    room: int | None
    exact: bool = True


_CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc"
_POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice"
_USER = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-code.scope"
_SLICE = "sys/fs/cgroup/user.slice/user-1000.slice"
_JOB = "/slurm/uid_1000/job_7"

KINDS: dict[str, Kind] = {
    "docker, v1": Kind(
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab",
            "proc/self/mountinfo": mounted_v1("/docker/ab"),
            **v1("sys/fs/cgroup/memory", 512 * MIB, rss=100 * MIB, shmem=20 * MIB, file=300 * MIB, kills=2),
        },
        1, 512 * MIB, "/", 120 * MIB, 2, 392 * MIB,
    ),
    "docker, v2, own namespace": Kind(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": mounted_v2(),
            "sys/fs/cgroup/cgroup.controllers": _CONTROLLERS,
            **v2("sys/fs/cgroup", 512 * MIB, anon=100 * MIB, shmem=20 * MIB, file=300 * MIB, dirty=10 * MIB,
                 kernel=9 * MIB, slabs=5 * MIB, kills=1),
        },
        2, 512 * MIB, "/", 120 * MIB, 1, 378 * MIB,
    ),
    "kubernetes, burstable, v2, the node's view": Kind(
        {
            "proc/self/cgroup": f"0::{_POD}/cri-1.scope",
            "proc/self/mountinfo": mounted_v2(),
            "sys/fs/cgroup/cgroup.controllers": _CONTROLLERS,
            "sys/fs/cgroup/memory.stat": rows(anon=9 * GIB, shmem=0),
            **v2("sys/fs/cgroup/kubepods.slice", 30 * GIB, anon=9 * GIB),
            **v2("sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice", anon=5 * GIB),
            **v2(f"sys/fs/cgroup{_POD}", 2 * GIB, anon=1900 * MIB, kills=3, kills_here=0),
            **v2(f"sys/fs/cgroup{_POD}/cri-1.scope", anon=700 * MIB, kills=1, together=1),
        },
        2, 2 * GIB, _POD, 700 * MIB, 1, 148 * MIB,
    ),
    "systemd, user's slice with memory.high": Kind(
        {
            "proc/self/cgroup": f"0::{_USER}",
            "proc/self/mountinfo": mounted_v2(),
            "sys/fs/cgroup/cgroup.controllers": _CONTROLLERS,
            "sys/fs/cgroup/memory.stat": rows(anon=9 * GIB, shmem=0),
            **v2("sys/fs/cgroup/user.slice", anon=3 * GIB),
            **v2(_SLICE, 8 * GIB, high=6 * GIB, anon=2 * GIB, throttled=4),
            **v2(f"{_SLICE}/user@1000.service", anon=GIB, shmem=MIB, kills=5),
            # Below here the controller is not switched on: there are no files of memory.
            f"sys/fs/cgroup{_USER}/cgroup.procs": "1",
        },
        2, 6 * GIB, "/user.slice/user-1000.slice", GIB + MIB, 5, 4 * GIB,
    ),
    "hybrid: memory in v1, the rest unified": Kind(
        {
            "proc/self/cgroup": "9:name=systemd:/x\n4:memory:/jobs/x\n0::/x",
            "proc/self/mountinfo": mounted_v1() + mounted_v2(point="/sys/fs/cgroup/unified"),
            "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb",
            "sys/fs/cgroup/unified/x/cgroup.procs": "1",
            **v1("sys/fs/cgroup/memory", rss=9 * GIB),
            **v1("sys/fs/cgroup/memory/jobs", 3 * GIB, rss=2 * GIB),
            **v1("sys/fs/cgroup/memory/jobs/x", rss=GIB, least=3 * GIB, kills=1),
        },
        1, 3 * GIB, "/jobs", GIB, 1, GIB,
    ),
    "hybrid: memory in v2": Kind(
        {
            "proc/self/cgroup": "4:devices:/x\n0::/x",
            "proc/self/mountinfo": mounted_v2(point="/sys/fs/cgroup/unified"),
            "sys/fs/cgroup/unified/cgroup.controllers": "memory",
            **v2("sys/fs/cgroup/unified/x", GIB, anon=MIB),
        },
        2, GIB, "/x", MIB, 0, GIB - MIB,
    ),
    "LXC, the host's path is mounted as it is": Kind(
        {
            "proc/self/cgroup": "4:memory:/lxc/box",
            "proc/self/mountinfo": mounted_v1("/lxc/box", "/sys/fs/cgroup/memory/lxc/box"),
            **v1("sys/fs/cgroup/memory/lxc/box", GIB, rss=300 * MIB),
        },
        1, GIB, "/", 300 * MIB, 0, 724 * MIB,
    ),
    "the host's path without a list of mounts": Kind(
        {
            "proc/self/cgroup": "4:memory:/gone",
            **v1("sys/fs/cgroup/memory", GIB, rss=300 * MIB, kills=1),
        },
        1, GIB, "/", 300 * MIB, 1, 724 * MIB, exact=False,
    ),
    "a sandbox that sees its host's tree": Kind(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": mounted_v2("/../../.."),
            "sys/fs/cgroup/cgroup.controllers": _CONTROLLERS,
            **v2("sys/fs/cgroup", 4 * GIB, anon=GIB),
        },
        2, 4 * GIB, "/", GIB, 0, 3 * GIB, exact=False,
    ),
    "a process outside its reader's namespace": Kind(
        {
            "proc/self/cgroup": "0::/..",
            "proc/self/mountinfo": mounted_v2(),
            "sys/fs/cgroup/cgroup.controllers": _CONTROLLERS,
            **v2("sys/fs/cgroup", 4 * GIB, anon=GIB),
        },
        2, 4 * GIB, "/", GIB, 0, 3 * GIB, exact=False,
    ),
    "WSL2, v2, no limit": Kind(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": mounted_v2(),
            "sys/fs/cgroup/cgroup.controllers": _CONTROLLERS,
            "sys/fs/cgroup/memory.stat": rows(anon=700 * MIB, shmem=MIB),
        },
        2, None, None, 701 * MIB, None, None,
    ),
    "WSL2, v1, no limit": Kind(
        {
            "proc/self/cgroup": "4:memory:/\n0::/",
            "proc/self/mountinfo": mounted_v1() + mounted_v2(point="/sys/fs/cgroup/unified"),
            **v1("sys/fs/cgroup/memory", rss=700 * MIB),
        },
        1, None, None, 700 * MIB, 0, None,
    ),
    "Slurm, v1: the job above the step is limited": Kind(
        {
            "proc/self/cgroup": f"4:memory:{_JOB}/step_0/task_0",
            "proc/self/mountinfo": mounted_v1(),
            **v1("sys/fs/cgroup/memory", rss=20 * GIB),
            **v1("sys/fs/cgroup/memory/slurm", rss=20 * GIB),
            **v1("sys/fs/cgroup/memory/slurm/uid_1000", 64 * GIB, rss=9 * GIB),
            **v1(f"sys/fs/cgroup/memory{_JOB}", 8 * GIB, rss=6 * GIB),
            **v1(f"sys/fs/cgroup/memory{_JOB}/step_0", 16 * GIB, rss=5 * GIB),
            **v1(f"sys/fs/cgroup/memory{_JOB}/step_0/task_0", rss=GIB, least=8 * GIB, kills=1),
        },
        1, 8 * GIB, _JOB, GIB, 1, 2 * GIB,
    ),
    "v1: a group above the container, which it does not show": Kind(
        {
            "proc/self/cgroup": "4:memory:/kubepods/pod7/ab",
            "proc/self/mountinfo": mounted_v1("/kubepods/pod7/ab"),
            **v1("sys/fs/cgroup/memory", 4 * GIB, rss=GIB, least=2 * GIB),
        },
        1, 2 * GIB, "above the mount", GIB, 0, GIB,
    ),
    "v1: a group above that does not count those below it": Kind(
        {
            "proc/self/cgroup": "4:memory:/flat/own",
            "proc/self/mountinfo": mounted_v1(),
            **v1("sys/fs/cgroup/memory", counts_below=0),
            **v1("sys/fs/cgroup/memory/flat", GIB, rss=GIB, counts_below=0),
            **v1("sys/fs/cgroup/memory/flat/own", 2 * GIB, rss=MIB, counts_below=0),
        },
        1, 2 * GIB, "/flat/own", MIB, 0, 2 * GIB - MIB,
    ),
    "mounted elsewhere, under a name with a blank": Kind(
        {
            "proc/self/cgroup": "0::/a",
            "proc/self/mountinfo": mounted_v2(point="/run/my\\040groups"),
            "run/my groups/cgroup.controllers": _CONTROLLERS,
            **v2("run/my groups/a", GIB, anon=MIB),
        },
        2, GIB, "/a", MIB, 0, GIB - MIB,
    ),
    "gVisor: no groups of memory": Kind(
        {"proc/self/cgroup": "2:cpu:/\n1:job:/", "proc/self/mountinfo": "1 0 0:1 / / rw - 9p none rw"},
        0, None, None, None, None, None,
    ),
    "v2 without the memory controller": Kind(
        {
            "proc/self/cgroup": "0::/a",
            "proc/self/mountinfo": mounted_v2(),
            "sys/fs/cgroup/cgroup.controllers": "cpu pids",
            "sys/fs/cgroup/a/cgroup.procs": "1",
        },
        0, None, None, None, None, None,
    ),
    "nothing at all": Kind({}, 0, None, None, None, None, None),
}  # fmt: skip
