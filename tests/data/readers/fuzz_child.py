"""Reads broken copies of the files in a folder: `python -m tests.data.readers.fuzz_child FOLDER COUNT SEED`.

Meant to run alone under a memory limit. Prints a JSON object with what came of it; whatever is neither an
array nor `UnreadableFile` ends it with a traceback, and so does a file that takes too long.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import sys
import time
from pathlib import Path

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.geometry import Window
from caudal.data.readers import reader_for
from tests.data.readers.mutations import lying, mutated

HANGS_AFTER_SECONDS = 30
WHOLE_PIXELS = 2**20
# What a caller with little memory asks a source for; of a few bytes that claim much, it is told more.
MOST_BYTES = 256 * 2**20


def main(folder: Path, count: int, seed: int) -> None:
    """Read `count` broken copies, a share of them of each file."""
    originals = [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]
    random = np.random.default_rng(seed)
    ends: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    for number in range(count):
        suffix, whole = originals[number % len(originals)]
        bend = lying if suffix == ".tif" and number // len(originals) % 2 else mutated
        path = folder.parent / f"broken{suffix}"
        path.write_bytes(bend(whole, random))
        faulthandler.dump_traceback_later(HANGS_AFTER_SECONDS, exit=True)
        began = time.thread_time()
        ends[read(path)] += 1
        slowest = max(slowest, time.thread_time() - began)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"ends": ends, "slowest_seconds": slowest}))


def read(path: Path) -> str:
    """How reading ended: the header, then the first window and the last, or all of a small picture."""
    reader = reader_for(path)
    try:
        header = reader.header(path)
        with reader.open(path) as source:
            side = (header.height, header.width)
            if header.height * header.width > WHOLE_PIXELS:
                side = min(256, header.height), min(256, header.width)
            for row, col in {(0, 0), (header.height - side[0], header.width - side[1])}:
                window = Window(row, col, *side)
                if source.scratch_bytes(window) + window.area_px * header.pixel_bytes > MOST_BYTES:
                    return "too much"
                x_HWC = source.read(window).x_HWC
                assert x_HWC.shape == (*side, header.bands)
                assert x_HWC.dtype == header.dtype
    except UnreadableFile as error:
        return "refused" if error.hint and str(path) in error.message else "refused without a word"
    return "read"


if __name__ == "__main__":
    faulthandler.enable()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
