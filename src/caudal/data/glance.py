"""What pictures show at a glance: their size, border, colour cast, and a thumbnail to tell copies by.

Each picture is decoded once, as small as it can be, and some hundred numbers of it are kept: a few thousand
pictures take some MB. Which class they have is not known here.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.errors import UnreadableFile
from caudal.core.files import write_whole
from caudal.data.byte_file import read_bytes
from caudal.data.index_cache import cache_folder
from caudal.data.locations import is_remote, open_bytes
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import blocks

MOST = 5000
"""Pictures that are looked at."""
_MOST_BYTES = 2**30  # of their files: large photographs take long
_MOST_DECODED_BYTES = 2**26  # of one picture: whoever plans a run holds little
_VERSION = 2
_SIDE_PX = 32
_GREY_PX = 16
_BORDER_PX = 2  # of `_SIDE_PX`
_BANDS = 8  # the first of them

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Glance:
    """Of the samples `numbers` (N), in growing order; `complete`: they are all that were asked for.

    `size` (N, 2): logarithms of the pixels and of width by height, of the picture as stored. `border`
    (N, 2 × bands): mean and deviation along the edges. `cast` (N, bands): each band's mean by that of all.
    `grey` (N, 256): a thumbnail, mean 0 and length 1; all 0 for a picture without contrast.
    """

    numbers: Ints
    complete: bool
    size: Floats
    border: Floats
    cast: Floats
    grey: Floats


def glance(
    samples: SampleSet,
    name: str,
    members: Ints,
    threads: int,
    arrange: Callable[[Array], Array] = lambda x_NHWC: x_NHWC,
) -> Glance | None:
    """Look at the pictures `name` of `members`, or at the first of them where they are many or large.

    `arrange` makes (N, H, W, bands) of what lies in files of arrays. `None` for what is far away: every
    picture would be fetched; and for arrays and chips that are large. Pictures that are so, or cannot be
    read, are passed over.
    """
    if is_remote(samples.root) or not _is_small(samples):
        return None
    wanted = _affordable(samples, members)
    kept = cache_folder() / f"{_fingerprint(samples, name, wanted)}.glance.npz"
    found = _load(kept)
    if found is None:
        rows = list(_rows(samples, name, wanted, threads, arrange))
        if not rows:
            return None
        columns = [
            np.stack(column).astype(np.float32) for column in zip(*(row for _n, row in rows), strict=True)
        ]
        found = Glance(np.array([n for n, _row in rows], np.int64), len(rows) == len(members), *columns)
        _store(kept, found)
    return found


def _is_small(samples: SampleSet) -> bool:
    from caudal.data.sample_files.pictures import PictureReader

    if isinstance(samples.reader, PictureReader):
        return True  # each is looked at by itself
    return max(samples.scratch_bytes, int(samples.block_bytes().max())) <= 3 * _MOST_DECODED_BYTES


def _affordable(samples: SampleSet, members: Ints) -> Ints:
    members = members[:MOST]
    if len(samples.columns.sizes) != len(samples):  # files of many samples each
        per_sample = sum(one.row_bytes for one in samples.fields)
        return members[: max(1, _MOST_BYTES // max(1, per_sample))]
    total = np.cumsum(samples.columns.sizes[members])
    return members[: max(1, int(np.searchsorted(total, _MOST_BYTES, "right")))]


def _rows(
    samples: SampleSet, name: str, wanted: Ints, threads: int, arrange: Callable[[Array], Array]
) -> Iterable[tuple[int, tuple[Array, ...]]]:
    from caudal.data.sample_files.pictures import PictureReader

    if isinstance(samples.reader, PictureReader):
        names = samples.columns.names
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda number: _picture(names[samples.where(number)[0]]), wanted.tolist())
            for number, row in zip(wanted.tolist(), found, strict=True):
                if row is not None:
                    yield number, row
        return
    chosen = set(wanted.tolist())
    of = np.unique(np.searchsorted(samples.columns.block_ends, wanted, "right"))
    for first, last, values in blocks(samples, of, (name,)):
        for number in range(first, last):
            if number in chosen:
                x_HWC = arrange(values[name][number - first : number - first + 1])[0]
                yield number, _numbers(_small(x_HWC), x_HWC.shape[0], x_HWC.shape[1])


def _picture(name: str) -> tuple[Array, ...] | None:
    from caudal.data.sample_files.picture_decode import decode_into, read_header, scratch_bytes
    from caudal.data.sample_files.picture_header import BrokenPicture

    try:
        file = open_bytes(name)
        try:
            data = read_bytes(file, 0, file.size_bytes)
        finally:
            file.close()
        header = read_header(io.BytesIO(data), len(data))
        if scratch_bytes(header, (_SIDE_PX, _SIDE_PX), True, True) > _MOST_DECODED_BYTES:
            return None
        x_HWC = np.empty((_SIDE_PX, _SIDE_PX, 3), np.uint8)
        decode_into(data, header, True, True, x_HWC)
    except (UnreadableFile, BrokenPicture):
        return None  # counted and told when a stream comes to it
    return _numbers(x_HWC.astype(np.float32), *header.upright_px)


def _small(x_HWC: Array) -> Floats:
    """The first bands, as a thumbnail; what is not finite counts as the mean of the rest."""
    import cv2

    x_HWC = np.asarray(x_HWC[:, :, :_BANDS], np.float32)
    known = np.isfinite(x_HWC)
    if not known.all():
        x_HWC = np.where(known, x_HWC, x_HWC[known].mean() if known.any() else 0.0).astype(np.float32)
    bands = [
        cv2.resize(np.ascontiguousarray(x_HWC[:, :, k]), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
        for k in range(x_HWC.shape[2])
    ]
    return np.stack(bands, -1)


def _numbers(x_HWC: Floats, height: int, width: int) -> tuple[Array, ...]:
    """Size, border, cast and grey of a thumbnail, see `Glance`."""
    size = np.log([height * width, width / height])
    edge = np.ones((_SIDE_PX, _SIDE_PX), np.bool_)
    edge[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = False
    ring_NC = x_HWC[edge]
    mean_C = x_HWC.mean((0, 1))
    cast = mean_C / (np.abs(mean_C).mean() or 1.0)
    step = _SIDE_PX // _GREY_PX
    grey = x_HWC.mean(2).reshape(_GREY_PX, step, _GREY_PX, step).mean((1, 3)).ravel()
    grey = grey - grey.mean()
    length = float(np.linalg.norm(grey))
    contrast = length / _GREY_PX  # their deviation
    seen = contrast > max(1.0, 1e-3 * float(np.abs(x_HWC).max())) if x_HWC.max() > 1 else length > 0
    return size, np.r_[ring_NC.mean(0), ring_NC.std(0)], cast, grey / length if seen else np.zeros_like(grey)


def _fingerprint(samples: SampleSet, name: str, wanted: Ints) -> str:
    """What changes with any of the files that are looked at."""
    digest = hashlib.blake2b(f"{_VERSION} {samples.root} {samples.digest} {name}".encode(), digest_size=16)
    digest.update(wanted.tobytes())
    files = np.unique(np.searchsorted(samples.columns.file_ends, wanted, "right"))
    names = samples.columns.names
    for number in files.tolist():
        with suppress(OSError):
            digest.update(str(Path(names[number]).stat().st_mtime_ns).encode())
    return digest.hexdigest()


def _load(path: Path) -> Glance | None:
    try:
        with np.load(path, allow_pickle=False) as kept:
            values = {one.name: kept[one.name] for one in fields(Glance)}
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return Glance(**{**values, "complete": bool(values["complete"])})


def _store(path: Path, found: Glance) -> None:
    """Keep it; a failure to write is nobody's harm."""

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **{one.name: getattr(found, one.name) for one in fields(Glance)})

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
