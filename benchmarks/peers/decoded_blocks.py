"""A plain block reader: tifffile finds the tiles or strips of a window, imagecodecs decodes them.

Two threads, a task a batch, no cache: the best way of random windows in little memory before Caudal, in
some thirty lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import windows


class Blocks:
    """The blocks of one file; reading from it is safe from several threads."""

    def __init__(self, path: str) -> None:
        import tifffile

        self._file = tifffile.TiffFile(path)
        self._page = self._file.pages.first
        self._raw = np.memmap(path, np.uint8, "r")
        self.bands, self.dtype = self._page.samplesperpixel, self._page.dtype
        tiled = self._page.is_tiled
        self._high = self._page.tilelength if tiled else self._page.rowsperstrip
        self._wide = self._page.tilewidth if tiled else self._page.imagewidth
        self._across = -(-self._page.imagewidth // self._wide)

    def window(self, row: int, col: int, side: int) -> np.ndarray:
        """(side, side, bands), each block decoded once for this window."""
        out = np.empty((side, side, self.bands), self.dtype)
        for down in range(row // self._high, (row + side - 1) // self._high + 1):
            for right in range(col // self._wide, (col + side - 1) // self._wide + 1):
                block, top, left = (
                    self._decode(down * self._across + right),
                    down * self._high,
                    right * self._wide,
                )
                a, b = max(row, top), min(row + side, top + block.shape[0])
                c, d = max(col, left), min(col + side, left + block.shape[1])
                out[a - row : b - row, c - col : d - col] = block[a - top : b - top, c - left : d - left]
        return out

    def _decode(self, number: int) -> np.ndarray:
        start, length = self._page.dataoffsets[number], self._page.databytecounts[number]
        block, _place, _shape = self._page.decode(self._raw[start : start + length], number)
        assert block is not None, "a block without bytes"
        return np.asarray(block[0])


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Batches in order, four under way."""
    from pathlib import Path

    facts = job.facts
    files = [Blocks(str(path)) for path in sorted(Path(job.set).glob("*.tif"))]
    side, threads = int(facts["patch_px"]), int(job.option("threads", 2))

    def load(places: np.ndarray) -> dict[str, Any]:
        return {"x": np.stack([files[file].window(row, col, side) for file, row, col in places.tolist()])}

    with ThreadPoolExecutor(threads) as pool:
        for epoch in job.epochs():
            places = windows(facts, job.seed + epoch)
            under_way: deque[Future[dict[str, Any]]] = deque()
            for first in range(0, len(places), job.batch):
                under_way.append(pool.submit(load, places[first : first + job.batch]))
                if len(under_way) == 4:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()


if __name__ == "__main__":
    child.main(child.Loader(batches, imports=lambda _job: ("tifffile", "imagecodecs")))
