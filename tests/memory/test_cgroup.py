"""Recorded trees of each kind of control group."""

from pathlib import Path

import pytest

from caudal.memory import cgroup, limits, meters

GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_v2_takes_the_smallest_limit_on_the_way_up(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/pod/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/pod/app/memory.max": "max\n",
            "sys/fs/cgroup/pod/app/memory.stat": "anon 100\nfile 9999\nshmem 20\n",
            "sys/fs/cgroup/pod/app/memory.events": "oom 3\noom_kill 1\n",
        },
    )
    group = cgroup.read(root)
    assert (group.version, group.limit, group.charged, group.oom_kills) == (2, 2 * GIB, 120, 1)


def test_v1_reads_no_limit_as_none_and_charges_no_page_cache(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/box\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/box/memory.stat": "cache 5\ntotal_rss 300\ntotal_shmem 44\ntotal_cache 5\n",
            "sys/fs/cgroup/memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        },
    )
    group = cgroup.read(root)
    assert (group.version, group.limit, group.charged, group.oom_kills) == (1, GIB, 344, 2)


def test_hybrid_trees_are_read_by_the_controller_that_has_memory(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/gone\n0::/x\n",
            "sys/fs/cgroup/unified/cgroup.controllers": "\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": "total_rss 1\n",
        },
    )
    # The path inside a container is the host's: the mount's own top is the group then.
    assert cgroup.read(root).limit == GIB


@pytest.mark.parametrize("lines", ["", "0::/\n", "3:cpu:/\n"])
def test_without_a_memory_group_nothing_is_made_up(tmp_path: Path, lines: str) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": lines})
    group = cgroup.read(root)
    assert (group.version, group.limit, group.charged, group.oom_kills) == (0, None, None, None)


def test_what_is_available_is_the_least_of_all_limits(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n",
            "sys/fs/cgroup/cgroup.controllers": "memory\n",
            "sys/fs/cgroup/memory.max": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon {GIB}\nshmem 0\n",
        },
    )
    assert limits.available_ram(root) == 2 * GIB


def test_a_machine_that_tells_nothing_is_said_to(tmp_path: Path) -> None:
    assert meters.pressure(tmp_path) is None
    assert limits.shared_memory_bytes(tmp_path) is None
    assert cgroup.read(tmp_path).version == 0


def test_pressure_is_read_as_percent(tmp_path: Path) -> None:
    text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n"
    read = meters.pressure(tree(tmp_path, {"proc/pressure/memory": text}))
    assert read == meters.Pressure(1.5, 0.25)
