"""Which image belongs to which mask, found by name; nothing is opened here."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from caudal.core.errors import BadPair, DataError, UnreadableFile
from caudal.core.messages import _
from caudal.data.readers import known_suffixes

Pair = tuple[Path, Path | None]


def images_in(folder: Path) -> list[Path]:
    """Every file below `folder` that a reader knows, sorted; or the one file that `folder` is.

    Raises:
        UnreadableFile: there is no such folder, it cannot be listed, or it holds nothing readable.
    """
    if folder.is_file():
        return [folder]
    suffixes = set(known_suffixes())
    try:
        if not folder.exists():
            raise FileNotFoundError(_("there is no such file or folder"))
        list(folder.iterdir())  # rglob passes over a folder that it may not read
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    except OSError as error:
        raise UnreadableFile(
            _("{path} cannot be read: {why}.").format(path=folder, why=error.strerror or error),
            _("Check the name and its permissions."),
            path=folder,
        ) from None
    if not found:
        raise UnreadableFile(
            _("{path} holds no image that can be read.").format(path=folder),
            _("Images end in one of: {suffixes}.").format(suffixes=" ".join(sorted(suffixes))),
            path=folder,
        )
    return found


def find_pairs(data: list[Path], masks: list[Path]) -> list[Pair]:
    """Pair the images of `data` with masks of the same name.

    `masks` holds one folder for each of `data`, or none: then a folder `images` with a folder `masks`
    beside it is looked for, at any depth, or `data` is a CSV with the columns `image` and `mask`.

    Raises:
        BadPair: a mask is missing; all that lack one are counted, the first is named.
        DataError: nothing says where the masks are.
        UnreadableFile: a folder is missing or holds no image.
    """
    if masks:
        if len(masks) != len(data):
            raise DataError(
                _("{data} data folders and {masks} mask folders were given.").format(
                    data=len(data), masks=len(masks)
                ),
                _("Give one --masks for each data folder, in the same order."),
            )
        return [pair for root, folder in zip(data, masks, strict=True) for pair in _match(root, folder)]
    return [pair for root in data for pair in _search(root)]


def _search(root: Path) -> list[Pair]:
    if root.is_file() and root.suffix.lower() == ".csv":
        return _from_csv(root)
    if not root.exists():
        images_in(root)  # raises, with the reason
    folders = [root / "images"] if (root / "images").is_dir() else sorted(root.rglob("images"))
    pairs = [
        pair
        for images in folders
        if (images.parent / "masks").is_dir()
        for pair in _match(images, images.parent / "masks")
    ]
    if not pairs:
        raise DataError(
            _("{path} holds no folder “images” with a folder “masks” beside it.").format(path=root),
            _("Say where the masks are with --masks."),
            path=str(root),
        )
    return pairs


def _key(path: Path, root: Path) -> str:
    inside = path.relative_to(root) if path != root else Path(path.name)
    stem = inside.with_suffix("").as_posix()
    for tail in ("_mask", "_masks", "-mask", "_label", "_gt"):
        stem = stem.removesuffix(tail)
    return stem


def _match(images: Path, masks: Path) -> list[Pair]:
    by_name = {_key(path, masks): path for path in images_in(masks)}
    pairs = [(path, by_name.get(_key(path, images))) for path in images_in(images)]
    if len(pairs) == 1 and len(by_name) == 1 and images.is_file():
        return [(pairs[0][0], next(iter(by_name.values())))]
    alone = [image for image, mask in pairs if mask is None]
    if alone:
        raise BadPair(
            _("{count} of {total} images have no mask in {folder}, the first is {path}.").format(
                count=len(alone), total=len(pairs), folder=masks, path=alone[0]
            ),
            _("A mask has its image's name; add the missing ones or move those images away."),
            path=str(alone[0]),
            count=len(alone),
        )
    return list(pairs)


def _from_csv(path: Path) -> list[Pair]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(
            _("{path} cannot be read: {why}.").format(path=path, why=error),
            _("Save it as CSV in UTF-8."),
            path=path,
        ) from None
    if not rows or not {"image", "mask"} <= set(rows[0]):
        raise DataError(
            _("{path} has no columns “image” and “mask”.").format(path=path),
            _("Its first line must name them."),
            path=str(path),
        )
    pairs: list[Pair] = [(path.parent / row["image"], path.parent / row["mask"]) for row in rows]
    _check_there(path, (file for pair in pairs for file in pair if file))
    return pairs


def _check_there(path: Path, files: Iterable[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise BadPair(
                _("{path} names {file}, which is not there.").format(path=path, file=file),
                _("Paths in it are relative to its own folder."),
                path=str(file),
            )
