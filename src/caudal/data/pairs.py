"""Which images there are, and which mask belongs to which, found by name; no image is opened here."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from caudal.core.confined import check_path, check_remote
from caudal.core.errors import BadPair, DataError, UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import read_bytes
from caudal.data.locations import is_remote, list_files, located, open_bytes, relocated
from caudal.data.readers import known_suffixes
from caudal.data.unreadable import unreadable
from caudal.data.url import Location, Url, address_of

Pair = tuple[Location, Location | None]
Found = dict[str, Location]
"""Images by what they are called from a folder, like `north/a.tif`; a single one by its own name."""


def images_in(folder: str | Location) -> list[Location]:
    """Every file below `folder` that a reader knows, sorted; or the one file that `folder` is.

    Hidden files and folders are left out.

    Raises:
        UnreadableFile: there is no such folder, it cannot be listed, or it holds nothing readable.
    """
    return list(_images(located(folder)).values())


def find_pairs(data: Sequence[str | Location], masks: Sequence[str | Location]) -> list[Pair]:
    """Pair the images of `data` with masks of the same name.

    `masks` holds one folder for each of `data`, or none: then a folder `images` with a folder `masks`
    beside it is looked for, at any depth, or `data` is a CSV with the columns `image` and `mask`.

    Raises:
        BadPair: a mask is missing; all that lack one are counted, the first is named.
        DataError: nothing says where the masks are.
        UnreadableFile: a folder is missing or holds no image.
    """
    roots, folders = [located(one) for one in data], [located(one) for one in masks]
    if not folders:
        return [pair for root in roots for pair in _search(root)]
    if len(folders) != len(roots):
        raise DataError(
            _("{data} data folders and {masks} mask folders were given.").format(
                data=len(roots), masks=len(folders)
            ),
            _("Give one --masks for each data folder, in the same order."),
        )
    return [
        pair
        for root, folder in zip(roots, folders, strict=True)
        for pair in _match(root, _images(root), folder, _images(folder))
    ]


def _images(root: Location) -> Found:
    if isinstance(root, Path) and root.is_file():
        return {root.name: root}
    start = address_of(root)
    names = [name for name, _size in list_files(start, known_suffixes())]
    below = {name.removeprefix(start).lstrip("/") or root.name: relocated(name) for name in names}
    # In the order of paths, wherever they lie: the same data are the same set.
    return _some(root, dict(sorted(below.items(), key=lambda item: item[0].split("/"))))


def _some(folder: Location, found: Found) -> Found:
    if found:
        return found
    raise UnreadableFile(
        _("{path} holds no image that can be read.").format(path=folder),
        _("Images end in one of: {suffixes}.").format(suffixes=" ".join(known_suffixes())),
        path=str(folder),
    )


def _search(root: Location) -> list[Pair]:
    if root.suffix.lower() == ".csv" and (isinstance(root, Url) or root.is_file()):
        return _from_csv(root)
    folders: dict[tuple[str, ...], Found] = {}
    for name, image in _images(root).items():
        parts = tuple(name.split("/"))
        for depth, part in enumerate(parts[:-1], 1):
            if part in ("images", "masks"):
                folders.setdefault(parts[:depth], {})["/".join(parts[depth:])] = image
    for top in ("images", "masks"):
        if isinstance(root, Path) and (root / top).is_dir():
            folders.setdefault((top,), {})  # it is there, though nothing in it can be read
    of_images = [("images",)] if ("images",) in folders else sorted(f for f in folders if f[-1] == "images")
    matched = [(images, masks) for images in of_images if (masks := (*images[:-1], "masks")) in folders]
    if not matched:
        raise DataError(
            _("{path} holds no folder “images” with a folder “masks” beside it.").format(path=root),
            _("Say where the masks are with --masks."),
            path=str(root),
        )
    pairs: list[Pair] = []
    for images, masks in matched:
        above, below = root / "/".join(images), root / "/".join(masks)
        pairs += _match(above, _some(above, folders[images]), below, _some(below, folders[masks]))
    return pairs


def _key(name: str) -> str:
    stem = PurePosixPath(name).with_suffix("").as_posix()
    for tail in ("_mask", "_masks", "-mask", "_label", "_gt"):
        stem = stem.removesuffix(tail)
    return stem


def _match(root: Location, images: Found, folder: Location, masks: Found) -> list[Pair]:
    if list(images.values()) == [root] and len(masks) == 1:  # one image and one mask, whatever their names
        return [(root, next(iter(masks.values())))]
    by_key = {_key(name): mask for name, mask in masks.items()}
    pairs: list[Pair] = [(image, by_key.get(_key(name))) for name, image in images.items()]
    alone = [image for image, mask in pairs if mask is None]
    if alone:
        raise BadPair(
            _("{count} of {total} images have no mask in {folder}, the first is {path}.").format(
                count=len(alone), total=len(pairs), folder=folder, path=alone[0]
            ),
            _("A mask has its image's name; add the missing ones or move those images away."),
            path=str(alone[0]),
            count=len(alone),
        )
    return pairs


def _from_csv(path: Location) -> list[Pair]:
    with closing(open_bytes(path)) as file:
        content = read_bytes(file, 0, file.size_bytes)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except UnicodeDecodeError as error:
        raise unreadable(path, str(error), _("Save it as CSV in UTF-8.")) from None
    if not rows or not {"image", "mask"} <= set(rows[0]):
        raise DataError(
            _("{path} has no columns “image” and “mask”.").format(path=path),
            _("Its first line must name them."),
            path=str(path),
        )
    return [(_named(path, row["image"]), _named(path, row["mask"])) for row in rows]


def _named(table: Location, text: str | None) -> Location:
    """The file that a table names; one elsewhere is looked for when its header is read."""
    file = Url(text) if text and is_remote(text) else table.parent / (text or "")
    if isinstance(file, Url):
        check_remote(str(file))
        return file
    check_path(file)
    return must_be_there(table, file)


def must_be_there(table: Location, file: Path) -> Path:
    """A file that a table names, as it is.

    Raises:
        BadPair: it is not there.
    """
    if not file.is_file():
        raise BadPair(
            _("{path} names {file}, which is not there.").format(path=table, file=file),
            _("Paths in it are relative to its own folder."),
            path=str(file),
        )
    return file
