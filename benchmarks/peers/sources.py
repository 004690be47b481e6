"""The sets as peers read them: `source[i]` is sample `i`, by the fastest plain way that libraries give.

One source a kind of set; loaders that take map-style data sets (DataLoader, SPDL, Grain) share them, so
that a difference between two of them is a difference of loaders. Nothing here batches, shuffles or threads;
files are opened where they are used, so that a source can be sent to a worker process.
"""

from __future__ import annotations

import json
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.child import Job

Sample = dict[str, Any]
SIDE_PX = 224


class Opened(threading.local):
    """Files that the thread which asks has open in this process."""

    def __init__(self) -> None:
        self.process, self.files = 0, dict[str, Any]()

    def get(self, path: str, opener: Any) -> Any:
        """The open file; `opener(path)` if this thread has not opened it yet."""
        if self.process != os.getpid():  # a forked child must not share its parent's handles
            self.process, self.files = os.getpid(), {}
        if path not in self.files:
            self.files[path] = opener(path)
        return self.files[path]


class Source:
    """A set in a folder. `ragged` says that samples differ in length and cannot be stacked."""

    ragged = False
    needs: tuple[str, ...] = ()

    def __init__(self, job: Job) -> None:
        self.folder, self.facts = Path(job.set), job.facts

    def __len__(self) -> int:
        return int(self.facts["samples"])

    def __getitem__(self, i: int) -> Sample:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}

    @cached_property
    def _opened(self) -> Opened:
        return Opened()

    def files(self, suffix: str) -> list[str]:
        """The set's files, in order."""
        return sorted(str(path) for path in self.folder.glob(f"*{suffix}"))

    def batch(self, indices: Any) -> Sample:
        """Several samples: stacked, or lists where they are ragged."""
        samples = [self[int(i)] for i in indices]
        join = (lambda column: column) if self.ragged else np.stack
        return {name: join([sample[name] for sample in samples]) for name in samples[0]}


class Ragged(Source):
    """A file a sample, mapped: `x` and `y` are views of the file's pages until somebody reads them."""

    ragged = True
    needs = ("torch", "safetensors.torch")

    @cached_property
    def _paths(self) -> list[str]:
        return self.files(".safetensors")

    def __getitem__(self, i: int) -> Sample:
        from safetensors.torch import load_file

        return load_file(self._paths[i])


class Scenes(Source):
    """Seeded windows of rasters through rasterio; `gdal_cache` bounds GDAL's block cache in MB."""

    needs = ("rasterio",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._cache = job.option("gdal_cache", None)
        self.windows = windows(self.facts, job.seed)
        self.patch_px = int(self.facts["patch_px"])
        self.paths = self.files(".tif")

    def __getitem__(self, i: int) -> Sample:
        if self._cache is not None:  # GDAL reads it when it first makes a block
            os.environ["GDAL_CACHEMAX"] = str(self._cache)
        import rasterio
        from rasterio.windows import Window

        file, row, col = (int(number) for number in self.windows[i])
        raster = self._opened.get(self.paths[file], rasterio.open)
        return {"x": raster.read(window=Window(col, row, self.patch_px, self.patch_px))}


def windows(facts: dict[str, Any], seed: int) -> np.ndarray:
    """(samples, 3) int64: file, row and column of random windows, evenly over the area of the set."""
    draw = np.random.default_rng(seed)
    count, side, patch = int(facts["samples"]), int(facts["side_px"]), int(facts["patch_px"])
    places = draw.integers(0, side - patch + 1, (count, 2))
    return np.column_stack([draw.integers(0, int(facts["files"]), count), places])


class Photographs(Source):
    """JPEG to 224 × 224 × 3: simplejpeg and OpenCV, whole or (`scaled`) decoded at a fraction of the size."""

    needs = ("simplejpeg", "cv2")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._scaled = bool(job.option("scaled", False))

    @cached_property
    def _paths(self) -> list[str]:
        return self.files(".jpg")

    def __getitem__(self, i: int) -> Sample:
        return {"x": picture(Path(self._paths[i]).read_bytes(), self._scaled)}


def picture(data: bytes, scaled: bool) -> np.ndarray:
    """(224, 224, 3) uint8 of a JPEG."""
    import cv2
    import simplejpeg

    cv2.setNumThreads(0)  # the loader has its own threads
    least = {"min_height": SIDE_PX, "min_width": SIDE_PX} if scaled else {}
    x = simplejpeg.decode_jpeg(data, **least)
    return np.asarray(cv2.resize(x, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR))


class Packed(Source):
    """Shards of equal samples, mapped with numpy; a batch is gathered from the pages."""

    @cached_property
    def columns(self) -> list[dict[str, np.ndarray]]:
        """The arrays of each shard."""
        return [mapped(path) for path in self.files(".safetensors")]

    def __getitem__(self, i: int) -> Sample:
        shard, place = divmod(i, int(self.facts["shard"]))
        return {name: column[place] for name, column in self.columns[shard].items()}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "columns"}


def mapped(path: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, as views of its pages."""
    kinds = {"F32": "<f4", "U16": "<u2", "I64": "<i8", "U8": "u1"}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    pages = np.memmap(path, np.uint8, "r")
    header.pop("__metadata__", None)
    return {
        name: pages[8 + length + a : 8 + length + b].view(kinds[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in header.items()
        for a, b in [tensor["data_offsets"]]
    }


class Ready(Packed):
    """The whole set in RAM before anything is timed: what is left is moving it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        shards = self.columns
        self._all = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
        del self.columns

    def __getitem__(self, i: int) -> Sample:
        return {name: column[i] for name, column in self._all.items()}

    def batch(self, indices: Any) -> Sample:
        """Gathered at once."""
        return {name: column[indices] for name, column in self._all.items()}


class Table(Source):
    """Rows of a Parquet file: packed columns, or (`tuples`) a Python tuple a row, as path lists are."""

    needs = ("pyarrow.parquet",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import pyarrow.parquet as pq

        table = pq.read_table(self.files(".parquet")[0])
        columns = {name: table[name].to_numpy() for name in table.column_names}
        self._names = list(columns)
        self._tuples = (
            list(zip(*(c.tolist() for c in columns.values()), strict=True))
            if job.option("tuples", False)
            else None
        )
        self._columns = columns if self._tuples is None else {}

    def __getitem__(self, i: int) -> Sample:
        if self._tuples is not None:
            return dict(zip(self._names, self._tuples[i], strict=True))
        return {name: column[i] for name, column in self._columns.items()}

    def batch(self, indices: Any) -> Sample:
        """Gathered at once, if the columns are packed."""
        if self._tuples is None:
            return {name: column[indices] for name, column in self._columns.items()}
        rows = [self._tuples[i] for i in indices]
        return {name: np.array(c) for name, c in zip(self._names, zip(*rows, strict=True), strict=True)}


SOURCES: dict[str, type[Source]] = {
    "ragged": Ragged,
    "scenes": Scenes,
    "photographs": Photographs,
    "chips": Packed,
    "tensors": Ready,
    "table": Table,
}


def source(job: Job) -> Source:
    """The source of the job's set."""
    return SOURCES[job.kind](job)


def needs(job: Job) -> tuple[str, ...]:
    """What has to be imported to read the job's set."""
    return SOURCES[job.kind].needs
