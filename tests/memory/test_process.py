"""Bytes of a process tree: what forked processes share is counted once, and looking costs next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.memory.trees import MIB, write

from caudal.memory import meters, process
from caudal.memory.meters import Overlap, charged_bytes

FORKED, SPAWNED = 0x400040, 0x400000
OLD, NEW = 1, 10**15  # ticks since the start of the machine


def recorded(
    pid: int,
    parent: int,
    *,
    anonymous: int,
    shared: int = 0,
    part: int | None = None,
    shared_part: int = 0,
    children: str = "",
    flags: int = SPAWNED,
    began: int = OLD,
) -> dict[str, object]:
    """The files of one process; `part` is its part of the anonymous pages, MiB all of them."""
    after_flags = "0 " * 12
    files: dict[str, object] = {
        f"proc/{pid}/status": f"Name:\tx y\nRssAnon:\t{anonymous << 10} kB\nRssShmem:\t{shared << 10} kB",
        f"proc/{pid}/stat": f"{pid} (x) y) S {parent} 1 1 0 -1 {flags} {after_flags}{began} 0",
        f"proc/{pid}/task/{pid}/children": children,
    }
    if part is not None:
        files[f"proc/{pid}/smaps_rollup"] = (
            f"0-1 ---p 0 00:00 0 [rollup]\nAnonymous: {anonymous << 10} kB\n"
            f"Pss_Anon: {part << 10} kB\nPss_Shmem: {shared_part << 10} kB"
        )
    return files


def charged(root: Path, files: dict[str, object], pid: int = 7) -> float:
    return charged_bytes(pid, write(root, files), Overlap()) / MIB


def test_pages_that_forks_share_are_counted_once(tmp_path: Path) -> None:
    files = {
        **recorded(7, 1, anonymous=100, part=55, children="8 9"),
        **recorded(8, 7, anonymous=100, part=45, flags=FORKED),
        **recorded(9, 7, anonymous=30, part=999),  # spawned: not looked into
    }
    assert charged(tmp_path, files) == 55 + 45 + 30


def test_shared_memory_that_forks_map_in_parts_is_added_up(tmp_path: Path) -> None:
    files = {
        **recorded(7, 1, anonymous=10, part=10, shared=60, shared_part=40, children="8"),
        **recorded(8, 7, anonymous=10, part=10, shared=50, shared_part=30, flags=FORKED),
    }
    assert charged(tmp_path, files) == 20 + 70


def test_processes_that_may_not_be_looked_into_count_whole(tmp_path: Path) -> None:
    files = {
        **recorded(7, 1, anonymous=100, children="8"),
        **recorded(8, 7, anonymous=90, flags=FORKED),
    }
    assert charged(tmp_path, files) == 190


def test_a_child_on_its_way_to_another_program_is_not_its_parent_a_second_time(tmp_path: Path) -> None:
    files = {
        **recorded(7, 1, anonymous=100, part=100, children="8"),
        **recorded(
            8, 7, anonymous=100, part=100, flags=FORKED, began=NEW
        ),  # vfork: it runs in the same pages
    }
    assert charged(tmp_path, files) == 100


def test_the_tree_never_counts_less_than_its_largest_process(tmp_path: Path) -> None:
    # Their parent, outside the tree, shares the same pages, so that the parts add up to less than is there.
    files = {
        **recorded(7, 1, anonymous=100, part=20, children="8", flags=FORKED),
        **recorded(8, 7, anonymous=80, part=20, flags=FORKED),
    }
    assert charged(tmp_path, files) == 100


def test_walking_over_pages_takes_no_more_than_half_a_percent_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_seconds, now, walks = 0.012, [0.0], []

    def walk(pids: set[int], root: Path) -> list[process.Part]:
        walks.append(now[0])
        now[0] += walk_seconds
        return []

    monkeypatch.setattr(process, "parts_of", walk)
    overlap = Overlap(clock=lambda: now[0])
    forks = [process.Fork(8, 7, 1, is_new=False)]
    for _ in range(1000):
        overlap.of(forks, tmp_path)
        now[0] += 0.1
    assert 30 < len(walks) <= 0.005 * now[0] / walk_seconds + 1
    # A process more, or one less: what was known is no longer true.
    before = len(walks)
    overlap.of([*forks, process.Fork(9, 7, 1, is_new=False)], tmp_path)
    assert len(walks) == before + 1


FORKING = """
import json, mmap, os, sys, threading
from caudal.memory import process
from caudal.memory.meters import Overlap, charged_bytes

MIB = 1 << 20

def touch(region, share):
    for offset in range(0, int(len(region) * share), mmap.PAGESIZE):
        region[offset] = 2

held = mmap.mmap(-1, 100 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
touch(held, 1)
alone = charged_bytes()
told, tell = os.pipe()
wait, go = os.pipe()
pid = os.fork()
if not pid:
    os.close(go)
    touch(held, float(sys.argv[1]))
    os.write(tell, b"x")
    os.read(wait, 1)
    os._exit(0)
os.read(told, 1)
while process.fork_of(pid).is_new:
    threading.Event().wait(0.01)
naive = sum(process.status(one)["RssAnon"] for one in (os.getpid(), pid))
forked = charged_bytes(overlap=Overlap())
os.close(go)
os.waitpid(pid, 0)
print(json.dumps([alone / MIB, naive / MIB, forked / MIB]))
"""


@pytest.mark.parametrize("copied", [0.0, 0.5, 1.0])
def test_a_real_child_that_shares_100_mib_is_charged_for_what_it_copied(copied: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(copied)], capture_output=True, text=True, check=True
    )
    alone, naive, forked = json.loads(done.stdout)
    assert naive - alone > 95  # adding up counts all of it again
    assert abs(forked - alone - 100 * copied) < 4


def test_ten_looks_a_second_take_less_than_one_percent_of_a_core() -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:  # so that the long way is taken
            charged_bytes()
            began = time.thread_time()
            for _ in range(100):
                charged_bytes()
            seconds = (time.thread_time() - began) / 100
            child.communicate(b"")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seconds * 10 < 0.01


def test_children_of_every_thread_are_found() -> None:
    found: list[int] = []

    def start() -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            found.extend({child.pid} & set(meters.descendants(os.getpid())))
            child.communicate(b"")

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(found) == 1


def test_a_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    assert process.status(7, tmp_path) == {}
    assert process.fork_of(7, tmp_path) is None
    assert process.part_of(7, tmp_path) is None
    assert charged_bytes(7, tmp_path) == 0
