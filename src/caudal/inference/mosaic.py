"""Writes finished windows as a Cloud-Optimized GeoTIFF, which is there whole or not at all.

As soon as a block is whole it is packed, to wait in an unnamed file, and halved, to be a quarter of a block
of the next coarser level. At last all are laid out in `NAME.part`, which is verified, synced and renamed.
Whatever goes wrong before, nothing stands under the final name and no temporary is left. What the pixels mean
is not known here.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from caudal.core.errors import DiskFull, IncompleteOutput, UsageError
from caudal.core.files import PART, is_disk_full, sync
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.gdal_open import opened_by_gdal
from caudal.data.url import Location
from caudal.inference.blocks import Blocks, Codec, Packing
from caudal.inference.cog import Tags, tags_of, write_cog
from caudal.inference.jobs import finish, share
from caudal.inference.patchwork import Patchwork
from caudal.inference.pyramid import How, halve, level_sizes

BLOCK_PX = 512
MOST_THREADS = 4  # each holds some blocks
_BLOCKS_A_THREAD = 2  # packed at once: enough that no thread waits long for the last
HELD_BLOCKS = 6  # by a thread: two that wait, one with its predictor, one packed, in quarters, compared


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a raster lies: its CRS, and an affine transform or ground control points (rasterio's objects)."""

    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()

    @classmethod
    def of(cls, path: Location) -> Georeference | None:
        """What the file at `path` says; `None` when it says nothing, or GDAL does not read it."""
        try:
            with _unplaced(), opened_by_gdal(path) as raster:
                points, points_crs = raster.gcps
                crs, transform = raster.crs, raster.transform
        except RasterioError:
            return None
        if points:
            return cls(points_crs, None, tuple(points))
        if crs is None and transform.is_identity:
            return None
        return cls(crs, None if transform.is_identity else transform)


@dataclass(frozen=True, slots=True)
class Layout:
    """The bands of an output: size in px, dtype, names, nodata, scaling of values, kind of overviews.

    A stored value v means `v × scale + offset`.
    """

    height: int
    width: int
    dtype: np.dtype[Any]
    names: tuple[str, ...]
    nodata: float
    overview: How
    scale: float = 1.0
    offset: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all bands."""
        return len(self.names) * self.dtype.itemsize


def writer_bytes(pixel_bytes: int, threads: int) -> int:
    """The most bytes that a `CogWriter` holds for pixels of that size, beside the window it is given."""
    return min(threads, MOST_THREADS) * HELD_BLOCKS * BLOCK_PX**2 * pixel_bytes


class CogWriter:
    """Collects windows for the COG at `path`; use as a context, and call `finish` when all are written.

    Raises:
        UsageError: the output's folder is not there.
        DiskFull: from any call; temporaries are removed on the way out of the context.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        georeference: Georeference | None = None,
        *,
        codec: Codec = "deflate",
        threads: int = 1,
    ) -> None:
        if not path.parent.is_dir():
            raise UsageError(
                _("{folder} is no folder to write {name} into.").format(folder=path.parent, name=path.name),
                _("Make it first, or choose another output."),
                path=str(path),
            )
        self.path = path
        self.layout = layout
        self._georeference = georeference or Georeference()
        self._codec = codec
        self._threads = min(threads, MOST_THREADS)
        self._part = path.with_name(path.name + PART)
        self._waiting: list[tuple[int, int, npt.NDArray[Any]]] = []
        self._pool: Executor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        layout, folder = self.layout, self.path.parent
        block_px, bands = _block_px(layout.width), len(layout.names)
        with self._stack as stack, disk_errors(self.path, MIB):
            self._remove_temporaries()
            stack.callback(self._remove_temporaries)
            self._tags = self._make_tags(block_px)
            packing = Packing(self._codec, _predictor(layout.dtype, layout.overview))
            sizes = level_sizes(layout.height, layout.width)
            self._blocks = Blocks(folder, sizes, block_px, bands, layout.dtype, layout.nodata, packing)
            stack.callback(self._blocks.close)
            self._levels = [Patchwork(folder, *size, block_px, bands, layout.dtype) for size in sizes]
            for level in self._levels:
                stack.callback(level.close)
            if self._threads > 1:  # the thread that writes takes part
                self._pool = stack.enter_context(ThreadPoolExecutor(self._threads - 1, "caudal-blocks"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, window: Window, x_CHW: npt.NDArray[Any]) -> None:
        """Write the pixels of `window`, once. Windows that hold whole blocks of 512 px are the fastest.

        `x_CHW` is kept for a while: it is not to be written into again.
        """
        with disk_errors(self.path, x_CHW.nbytes + MIB):
            for row, col, x_HWB in self._levels[0].add(window, x_CHW.transpose(1, 2, 0)):
                # A view of a part would hold the whole.
                self._waiting.append((row, col, np.ascontiguousarray(x_HWB)))
                if len(self._waiting) == self._threads * _BLOCKS_A_THREAD:
                    self._pack()

    def _pack(self) -> None:
        waiting, self._waiting = self._waiting, []
        jobs = share(self._pool, [partial(self._put, 0, *one) for one in waiting])
        finish(jobs)
        for job in jobs:
            job.result()

    def _put(self, level: int, row: int, col: int, x_HWB: npt.NDArray[Any]) -> None:
        """Pack a block, and hand what it makes of a coarser one on."""
        self._blocks.put(level, row, col, x_HWB)
        if level + 1 < len(self._levels):
            half_BHW = halve(x_HWB.transpose(2, 0, 1), self.layout.overview, self._blocks.nodata)
            half_px = self._blocks.block_px // 2
            window = Window(row * half_px, col * half_px, *half_BHW.shape[1:])
            for coarse in self._levels[level + 1].add(window, half_BHW.transpose(1, 2, 0)):
                self._put(level + 1, *coarse)

    def finish(self) -> None:
        """Lay out the COG, verify it, and give it its name.

        Raises:
            DiskFull: there was no room.
            IncompleteOutput: the file that was written is not the one that was asked for.
        """
        with disk_errors(self.path, MIB):
            self._pack()
            assert self._blocks.packed_bytes(0).all(), "a pixel was never written"
            with self._part.open("wb", buffering=MIB) as file:
                size_bytes = write_cog(file, self._tags, self._blocks)
            self._verify(size_bytes)
            sync(self._part)
            self._part.replace(self.path)
            sync(self.path.parent)

    def _make_tags(self, block_px: int) -> Tags:
        """The tags of an empty raster that GDAL writes, with the same bands, names and place."""
        where, layout = self._georeference, self.layout
        profile: dict[str, Any] = {"driver": "GTiff", "dtype": layout.dtype.name, "nodata": layout.nodata}
        profile |= {"height": 2 * block_px, "width": 2 * block_px, "count": len(layout.names)}
        profile |= {"tiled": True, "blockxsize": block_px, "blockysize": block_px, "interleave": "pixel"}
        profile |= {"compress": self._codec, "predictor": _predictor(layout.dtype, layout.overview)}
        profile |= {"SPARSE_OK": "TRUE", "BIGTIFF": "NO", "ENDIANNESS": "LITTLE"}
        profile |= {"crs": None if where.gcps else where.crs}
        if where.transform is not None:
            profile["transform"] = where.transform
        with _unplaced(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
            with rasterio.open(self._part, "w", **profile) as raster:
                if where.gcps:
                    raster.gcps = (list(where.gcps), where.crs)
                raster.descriptions = layout.names
                if (layout.scale, layout.offset) != (1.0, 0.0):
                    raster.scales = (layout.scale,) * len(layout.names)
                    raster.offsets = (layout.offset,) * len(layout.names)
                raster.update_tags(TIFFTAG_SOFTWARE="caudal", **layout.tags)
            return tags_of(self._part.read_bytes())

    def _verify(self, size_bytes: int) -> None:
        """Look at the file as a reader would: size and CRS, and that it has all its bytes."""
        layout, where = self.layout, self._georeference
        with _unplaced(), rasterio.open(self._part) as raster:
            found = (raster.height, raster.width, raster.count, raster.dtypes[0])
            asked = (layout.height, layout.width, len(layout.names), layout.dtype.name)
            crs = raster.gcps[1] if where.gcps else raster.crs
        whole = self._part.stat().st_size == size_bytes
        if found != asked or (where.crs is not None and crs != where.crs) or not whole:
            raise IncompleteOutput(
                _("{path} did not come out as it should: {found} instead of {asked}.").format(
                    path=self.path, found=(*found, str(crs)), asked=(*asked, str(where.crs))
                ),
                _("Nothing was kept. Try again; if it repeats, try another disk."),
                path=str(self.path),
            )

    def _remove_temporaries(self) -> None:
        for leftover in self._part.parent.iterdir():
            if leftover.name.startswith(self._part.name):
                leftover.unlink(missing_ok=True)


def _predictor(dtype: np.dtype[Any], overview: How) -> int:
    """TIFF's predictor: none for classes, whose differences mean nothing; else the one for the dtype."""
    if overview == "mode":
        return 1
    return 3 if dtype.kind == "f" else 2


def _block_px(width: int) -> int:
    # Tools that know tiles from strips by their width alone take a block as wide as the raster for a strip.
    return BLOCK_PX // 2 if width == BLOCK_PX else BLOCK_PX


@contextmanager
def _unplaced() -> Iterator[None]:
    """A raster that lies nowhere is no reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def disk_errors(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn a failure for want of space, while about `needed_bytes` were to be written, into `DiskFull`.

    GDAL often loses the reason, so when the folder of `path` has less room than that, it is taken for the
    reason.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(path.parent).free
        if isinstance(error, DiskFull) or not (is_disk_full(error) or free < needed_bytes):
            raise
        raise DiskFull(
            _("There was no room to write {path}: {free} are free in {folder}.").format(
                path=path, free=Bytes(free), folder=path.parent
            ),
            _("Free at least {needed} there, or write to another disk.").format(needed=Bytes(needed_bytes)),
            path=str(path),
            free_bytes=free,
        ) from error
