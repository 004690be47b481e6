import mmap
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from caudal.core.errors import DiskFull
from caudal.memory.meters import PeakMeter, Watch, charged_bytes, mind_files

MIB = 2**20


def touched(nbytes: int) -> mmap.mmap:
    region = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, nbytes, mmap.PAGESIZE):
        region[offset] = 1
    return region


def test_touched_pages_are_charged_and_given_back_ones_are_not() -> None:
    before = charged_bytes()
    region = touched(64 * MIB)
    held = charged_bytes()
    region.close()
    assert 60 * MIB < held - before < 70 * MIB
    assert charged_bytes() - before < 8 * MIB


def test_a_peak_that_is_over_before_anyone_looks_is_seen_all_the_same() -> None:
    meter = PeakMeter()
    before = meter.peak()  # of this process alone; others may have left children
    touched(48 * MIB).close()
    assert meter.resettable
    assert 44 * MIB < meter.peak() - before < 60 * MIB
    meter.reset()
    assert meter.peak() - before < 8 * MIB


def test_meters_share_the_mark_and_none_loses_its_peak_to_another() -> None:
    first = PeakMeter()
    before = first.peak()
    touched(48 * MIB).close()
    second = PeakMeter()
    touched(16 * MIB).close()
    first_saw, second_saw = first.peak() - before, second.peak() - before
    assert 44 * MIB < first_saw < 60 * MIB
    assert 12 * MIB < second_saw < 24 * MIB
    first.reset()
    assert first.peak() - before < 8 * MIB
    assert second.peak() - before == second_saw


def test_a_watch_takes_nothing_from_a_meter_beside_it() -> None:
    with Watch(hertz=1000.0) as watch:
        meter = PeakMeter()
        before = meter.peak()
        touched(48 * MIB).close()
        watch.peak  # noqa: B018 - a look, which begins the watch's mark anew
        assert 44 * MIB < meter.peak() - before < 60 * MIB


def test_children_are_charged_to_the_tree() -> None:
    code = "import sys; b = bytearray(b'x') * (80 << 20); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        alone = charged_bytes(child.pid)
        child.stdout.readline()
        assert charged_bytes() - 80 * MIB > 0
        assert charged_bytes(child.pid) >= 80 * MIB
        assert alone >= 0
        child.communicate(b"")


def test_mapped_files_are_not_charged(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "file"
    path.write_bytes(b"x" * (32 * MIB))
    before = charged_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert sum(view[k] for k in range(0, 32 * MIB, mmap.PAGESIZE))
        assert charged_bytes() - before < 4 * MIB


def test_pages_of_a_file_that_comes_and_goes_are_not_taken_for_a_peak(tmp_path: Path) -> None:
    path, meter = tmp_path / "file", PeakMeter()
    path.write_bytes(b"x" * (64 * MIB))
    meter.reset()
    before = charged_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert sum(view[k] for k in range(0, 64 * MIB, mmap.PAGESIZE))
        mind_files()
    assert meter.peak() - before < 8 * MIB


def test_the_watch_knows_the_peak_between_its_readings() -> None:
    with Watch(hertz=0.1) as watch:
        before = charged_bytes()
        touched(40 * MIB).close()
        assert watch.peak - before > 36 * MIB


def test_what_is_freed_while_a_watch_looks_is_counted_once() -> None:
    size = 48 * MIB  # too large for the heap: it comes and goes at once
    before = charged_bytes()
    with Watch(hertz=1000.0) as watch:
        for _turn in range(100):
            np.ones(size, np.uint8)
    assert before + 0.9 * size < watch.peak < before + 1.5 * size


def test_a_watch_goes_on_governing_when_nobody_can_write_its_trace() -> None:
    """A full disk ends the run at its next event, not the one who watches over its memory."""
    governed = threading.Event()

    def full(_charged: object) -> None:
        watch.governor = lambda _now: governed.set()
        raise DiskFull("No space is left.")

    with Watch(hertz=1000.0, listen=full) as watch:
        assert governed.wait(20)
