"""Writes finished windows as a Cloud-Optimized GeoTIFF, which is there whole or not at all.

Blocks go once, in any order, into `NAME.part` beside the output; overviews are made from it; GDAL's COG
driver lays both out anew in a second temporary, which is verified, synced and renamed. Whatever goes wrong
before, nothing stands under the final name and no temporary is left. What the pixels mean is not known here.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from caudal.core.errors import DiskFull, IncompleteOutput, UsageError
from caudal.core.files import PART, is_disk_full, sync
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.inference.pyramid import How, build_overviews, to_gdal

BLOCK_PX = 512
Codec = Literal["deflate", "zstd"]
# The temporary is read once and removed: only speed counts. For the output, Deflate is the default because
# browsers read it, and level 3 because 6 takes three times as long for a third fewer bytes.
_PART = {"compress": "ZSTD", "zstd_level": 1, "SPARSE_OK": "TRUE"}
_LEVEL: Mapping[str, int] = {"deflate": 3, "zstd": 3}


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a raster lies: its CRS, and an affine transform or ground control points (rasterio's objects)."""

    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()

    @classmethod
    def of(cls, path: Path) -> Georeference | None:
        """What the file at `path` says; `None` when it says nothing, or GDAL does not read it."""
        try:
            with _unplaced(), rasterio.open(path) as raster:
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


def cache_bytes(pixel_bytes: int) -> int:
    """What GDAL may keep of decoded blocks while an output with pixels of that size is written.

    Whole blocks are written, so a few are enough: 4 MiB are as fast as 32. Where bands are interleaved, less
    than a block of every band would have each block compressed again and again.
    """
    return max(4 * MIB, 4 * BLOCK_PX**2 * pixel_bytes)


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
        self._threads = threads
        self._part = path.with_name(path.name + PART)
        self._final = path.with_name(path.name + PART + ".cog")
        self._raster: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._remove_temporaries()
            stack.callback(self._remove_temporaries)
            stack.enter_context(
                rasterio.Env(GDAL_CACHEMAX=cache_bytes(self.layout.pixel_bytes), GDAL_PAM_ENABLED="NO")
            )
            stack.callback(self._close)
            with disk_errors(self.path, MIB):
                self._raster = self._open_part()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, window: Window, x_CHW: npt.NDArray[Any]) -> None:
        """Write the pixels of `window`, once. Windows that hold whole blocks of 512 px are the fastest."""
        with disk_errors(self.path, x_CHW.nbytes + MIB):
            self._raster.write(x_CHW, window=to_gdal(window))

    def finish(self) -> None:
        """Make the overviews and the COG, verify it, and give it its name.

        Raises:
            DiskFull: there was no room.
            IncompleteOutput: the file that was written is not the one that was asked for.
        """
        with disk_errors(self.path, 2 * self._part.stat().st_size + MIB), _unplaced():
            self._raster.close()
            build_overviews(self._part, self.layout.overview, self._part_profile())
            self._copy()
            self._verify()
            sync(self._final)
            self._final.replace(self.path)
            sync(self.path.parent)

    def _part_profile(self) -> dict[str, Any]:
        layout = self.layout
        profile: dict[str, Any] = {"height": layout.height, "width": layout.width, "count": len(layout.names)}
        profile |= {"driver": "GTiff", "dtype": layout.dtype.name, "nodata": layout.nodata}
        profile |= {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "interleave": "pixel"}
        return {
            **profile,
            "BIGTIFF": "IF_SAFER",
            "predictor": _predictor(layout.dtype, layout.overview),
            **_PART,
        }

    def _open_part(self) -> Any:
        where, layout = self._georeference, self.layout
        with _unplaced():
            profile = self._part_profile()
            if where.transform is not None:
                profile["transform"] = where.transform
            raster = rasterio.open(self._part, "w", **profile, crs=None if where.gcps else where.crs)
            if where.gcps:
                raster.gcps = (list(where.gcps), where.crs)
        raster.descriptions = layout.names
        if (layout.scale, layout.offset) != (1.0, 0.0):
            raster.scales = (layout.scale,) * len(layout.names)
            raster.offsets = (layout.offset,) * len(layout.names)
        raster.update_tags(TIFFTAG_SOFTWARE="caudal", **layout.tags)
        return raster

    def _copy(self) -> None:
        kind = {1: "NO", 2: "STANDARD", 3: "FLOATING_POINT"}[
            _predictor(self.layout.dtype, self.layout.overview)
        ]
        rasterio.shutil.copy(
            self._part,
            self._final,
            driver="COG",
            BLOCKSIZE=_block_px(self.layout.width),
            COMPRESS=self._codec.upper(),
            LEVEL=_LEVEL[self._codec],
            PREDICTOR=kind,
            OVERVIEWS="AUTO",
            BIGTIFF="IF_SAFER",
            NUM_THREADS=self._threads,
        )

    def _verify(self) -> None:
        """Look at the file as a reader would: size, CRS, and that every block lies inside it.

        A disk that fills up on the last bytes is told by GDAL to nobody; the blocks tell.
        """
        layout, where = self.layout, self._georeference
        with rasterio.open(self._final) as raster:
            found = (raster.height, raster.width, raster.count, raster.dtypes[0])
            asked = (layout.height, layout.width, len(layout.names), layout.dtype.name)
            crs = raster.gcps[1] if where.gcps else raster.crs
            whole = _blocks_end(raster) <= self._final.stat().st_size
        if found != asked or (where.crs is not None and crs != where.crs) or not whole:
            raise IncompleteOutput(
                _("{path} did not come out as it should: {found} instead of {asked}.").format(
                    path=self.path, found=(*found, str(crs)), asked=(*asked, str(where.crs))
                ),
                _("Nothing was kept. Try again; if it repeats, try another disk."),
                path=str(self.path),
            )

    def _close(self) -> None:
        # On the way out after a failure: what GDAL still wants to flush goes to a file that is about to go.
        if self._raster is not None and not self._raster.closed:
            with suppress(Exception):
                self._raster.close()

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


def _blocks_end(raster: Any) -> int:
    """Where in the file the last byte of a block lies, plus one."""
    end, block = 0, _block_px(raster.width)
    for row in range(ceil(raster.height / block)):
        for col in range(ceil(raster.width / block)):
            where = [
                raster.get_tag_item(f"BLOCK_{part}_{col}_{row}", "TIFF", bidx=1)
                for part in ("OFFSET", "SIZE")
            ]
            if None not in where:
                end = max(end, sum(map(int, where)))
    return end


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
