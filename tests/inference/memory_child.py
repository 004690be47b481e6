"""Maps a made-up raster in a process of its own and prints the peak of its memory.

Takes the arguments of `run` as a JSON list. Prints bytes before, bytes predicted and peak bytes as another.
Memory is anonymous + shared pages: what cannot be dropped.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.geometry import Window
from caudal.data.readers.base import Pixels
from caudal.inference.bands import bands_for
from caudal.inference.encode import Output
from caudal.inference.predict import predict_raster, working_bytes
from caudal.inference.tiles import TileGrid
from tests.inference.sources import MadeUp

BLOCK_PX = 128


def anonymous_bytes() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def pieces_until(tiles: TileGrid, pixel_bytes: int) -> list[int]:
    """How many pieces the chunks up to each one have, itself included."""
    bands = bands_for(tiles, BLOCK_PX, pixel_bytes)
    fresh = [len(set(bands.of(row)) - set(bands.of(row - 1) if row else ())) for row in range(tiles.rows)]
    return list(accumulate(count for count in fresh for _col in range(tiles.cols)))


class Peak:
    """Looks every two milliseconds."""

    def __init__(self) -> None:
        self.bytes, self._end = 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._end.wait(0.002):
            self.bytes = max(self.bytes, anonymous_bytes())


def run(height: int, width: int, bands: int, channels: int, grid: list[Any], batch: int, kind: Any) -> int:
    """Map one raster with a cheap model that, like a slow one, lets decoding get as far ahead as it may."""
    read, seen = threading.Condition(), 0
    tiles = TileGrid(height, width, *grid)
    until = pieces_until(tiles, bands + 1)

    def make(window: Window) -> Pixels:
        nonlocal seen
        rows = (np.arange(window.row, window.row_end) // 37).astype(np.uint8)
        cols = (np.arange(window.col, window.col_end) // 53).astype(np.uint8)
        x_HWC = np.empty((window.height, window.width, bands), np.uint8)
        x_HWC[...] = (rows[:, None] + cols)[..., None]
        with read:
            seen += 1
            read.notify()
        return Pixels(x_HWC, None)

    done = 0

    def forward(x_NHWC: Any, valid_NHW: Any) -> Any:
        nonlocal done
        done += len(x_NHWC)
        with read:
            read.wait_for(lambda: seen >= until[min(len(tiles), done + 2 * batch) - 1])
        scores = np.empty((len(x_NHWC), channels, *x_NHWC.shape[1:3]), np.float32)
        for channel in range(channels):
            np.multiply(x_NHWC[..., channel % bands], np.float32(1 / (255 + channel)), out=scores[:, channel])
        return scores

    output = Output(tuple(map(str, range(channels))), kind)
    with tempfile.TemporaryDirectory() as folder:
        source = MadeUp((height, width, bands), np.uint8, make, block=(BLOCK_PX, BLOCK_PX))
        predict_raster(source, forward, Path(folder) / "out.tif", tiles, output, batch=batch, threads=2)
    out_bytes = 1 if kind == "classes" else channels
    return working_bytes(tiles, bands, 1, channels, batch, out_bytes=out_bytes, threads=2, block_px=BLOCK_PX)


if __name__ == "__main__":
    run(300, 300, 1, 1, [128, 16, 16, "exact"], 1, "classes")  # libraries load what they load once
    before = anonymous_bytes()
    peak = Peak()
    predicted = run(*json.loads(sys.argv[1]))
    print(json.dumps([before, predicted, peak.bytes]))
