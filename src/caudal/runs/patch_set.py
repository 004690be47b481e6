"""The rasters that patches are cut from: found, paired with masks, left out where a header is broken.

Pixels of images are not read; those of masks are, once, because their values say what the classes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caudal.core.errors import BadValues, UnreadableFile
from caudal.core.labels import IGNORE
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.classes import MOST_CLASSES, Classes, infer
from caudal.data.index import Index, build
from caudal.data.locations import located
from caudal.data.mask_values import mask_values
from caudal.data.pairs import Pair, find_pairs, images_in
from caudal.data.readers import reader_for
from caudal.data.url import Location


@dataclass(frozen=True)
class PatchSet:
    """An index of rasters. `classes` of their masks, if they have some, whose widest pixel has `mask_bytes`.

    `unreadable` are files that are not in the index, because not even their headers can be read, and why;
    `notes`, what the user should know.
    """

    index: Index
    classes: Classes | None = None
    mask_bytes: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def open_patches(data: str | Path, masks: str | Path | None, threads: int, ram: Bytes) -> PatchSet:
    """Index what is there; see `caudal.stream` for `data` and `masks`.

    Raises:
        UnreadableFile: nothing to read.
        BadPair: a mask is missing, or is not on its image's grid.
        BadValues: a mask that is none.
        DataError: files that do not belong together.
    """
    index, unreadable = _readable(_pairs(data, masks))
    if masks is None:
        return PatchSet(index, unreadable=unreadable, notes=index.warnings)
    found = mask_values(index, threads, ram)
    classes, note = _classes(set(found.counts), str(located(str(masks))))
    told = _(
        "Field “mask” has class numbers (mask value → number: {numbers}), {ignore} where there is none."
    ).format(numbers=", ".join(f"{v} → {number}" for number, v in enumerate(classes.values)), ignore=IGNORE)
    notes = (*index.warnings, told, *([note] if note else []))
    return PatchSet(index, classes, found.pixel_bytes, unreadable, notes)


def _pairs(data: str | Path, masks: str | Path | None) -> list[Pair]:
    if masks is None:
        return [(image, None) for image in images_in(str(data))]
    root, folder = located(str(data)), located(str(masks))
    beside = _plain(folder) in (_plain(root), _plain(root / "masks"))
    return find_pairs([root], [] if beside else [folder])


def _plain(place: Location) -> Location:
    return place.resolve() if isinstance(place, Path) else place / ""


def _readable(pairs: list[Pair]) -> tuple[Index, tuple[tuple[str, str], ...]]:
    """The index of the pairs whose headers can be read; of the others, the file and the reason."""
    try:
        return build(pairs), ()  # the usual case costs one look at each header
    except UnreadableFile as error:
        first = error
    sound: list[Pair] = []
    unreadable: list[tuple[str, str]] = []
    for pair in pairs:
        try:
            for path in pair:
                if path is not None:
                    reader_for(path).header(path)
            sound.append(pair)
        except UnreadableFile as error:
            unreadable.append((str(error.facts["path"]), error.message))
    if not sound:
        raise first
    return build(sound), tuple(unreadable)


def _classes(values: set[int], masks: str) -> tuple[Classes, str]:
    if not values:
        raise BadValues(
            _("The masks in {path} hold no value.").format(path=masks),
            _("A mask holds class numbers; every pixel of these is NaN."),
            path=masks,
        )
    classes, note = infer(values)
    if classes.count > MOST_CLASSES:
        raise BadValues(
            _("The masks in {path} hold {count} different values.").format(path=masks, count=classes.count),
            _("A mask holds class numbers; was it saved as JPEG, or is it a photograph?"),
            path=masks,
        )
    return classes, note
