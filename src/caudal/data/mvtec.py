"""Good and defect images: what is good, what is not, and where, as folders or a table say it.

Folders are as MVTec AD lays them out: `train/good`, `test/good`, `test/<defect>`, and masks in
`ground_truth/<defect>` under the image's name, with or without `_mask`. `good` and `defect` folders alone are
understood as well, and so is a CSV (`judged_table`). No image is opened here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from caudal.core.confined import check_path
from caudal.core.errors import DataError, UnreadableFile
from caudal.core.messages import _
from caudal.data.judged_table import read_table
from caudal.data.locations import list_files
from caudal.data.pairs import images_in
from caudal.data.readers import known_suffixes

GOOD = "good"
_MASKS = ("ground_truth", "masks")
_SIDECARS = (".txt", ".md", ".csv", ".json", ".xml", ".ovr", ".prj", ".tfw", ".pgw", ".jgw", ".ini", ".db")
"""Files that lie beside images and are none: nobody misses them."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An image, whether it is `anomalous` (`None`: nobody said), its `kind`, and its mask if there is one."""

    path: Path
    kind: str
    anomalous: bool | None
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class GoodImages:
    """Images to learn from, and what has to be said of the others."""

    paths: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgedImages:
    """Images to score, and what has to be said. `learned`: the good ones are those that are learned from."""

    images: tuple[Judged, ...]
    learned: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def any_judged(self) -> bool:
        """Whether somebody said of one what it is."""
        return any(one.anomalous is not None for one in self.images)


def good_images(root: Path) -> GoodImages:
    """The images to learn from: those in `train/good` or `good`, the good ones of a table, else all.

    What lies in `test`, `ground_truth` and `masks` is not among them.

    Raises:
        UnreadableFile: there is none.
        DataError, BadPair: as `read_table`.
    """
    if root.is_file():
        if not _is_table(root):
            return GoodImages((root,))
        good = tuple(row.path for row in read_table(root) if row.label == GOOD)
        if not good:
            raise DataError(
                _("{path} names no good image to learn from.").format(path=root),
                _("Write “good” into the column “label” of images that are as they should be."),
                path=str(root),
            )
        return GoodImages(good)
    for folder in (root / "train" / GOOD, root / "train", root / GOOD):
        if folder.is_dir():
            return GoodImages(_paths(folder), (*_strays(folder), *_loose(root)))
    aside = {root / name for name in ("test", *_MASKS)}
    found = tuple(path for path in _paths(root) if not any(top in path.parents for top in aside))
    if not found:
        raise UnreadableFile(
            _("{path} holds no good images to learn from, only images to test with.").format(path=root),
            _("Put good ones into train/good, or name another folder."),
            path=str(root),
        )
    return GoodImages(found, _strays(root))


def judged_images(root: Path) -> JudgedImages:
    """The images to score: those below `test`, in folders of which one is `good`, or in a table; else all.

    Raises:
        UnreadableFile: there is none.
        DataError: a folder of masks has none for an image of its kind.
        BadPair: as `read_table`.
    """
    if root.is_file():
        if not _is_table(root):
            return JudgedImages((Judged(root, "", None),))
        rows = read_table(root)
        found = [Judged(r.path, r.label, r.label != GOOD if r.label else None, r.mask) for r in rows]
        return JudgedImages(tuple(found), learned=True)
    top = root / "test" if (root / "test").is_dir() else root
    check_path(top)
    if not (top / GOOD).is_dir() and top == root:
        aside = {root / name for name in _MASKS}
        plain = [path for path in _paths(root) if not any(one in path.parents for one in aside)]
        return JudgedImages(tuple(Judged(path, "", None) for path in plain), warnings=_strays(root))
    found, said = [], list[str]()
    for folder in sorted(one for one in top.iterdir() if _is_kind(one, root)):
        masks = _masks(root, folder.name) if folder.name != GOOD else None
        paths = _some(folder)
        if not paths:
            said.append(_("{folder} holds no image and is left out.").format(folder=folder))
            continue
        for path in paths:
            mask = _mask_of(path, masks) if masks is not None else None
            found.append(Judged(path, folder.name, folder.name != GOOD, mask))
        said += _strays(folder)
    said += _unused(root, found)
    loose = [Judged(path, "", None) for path in _here(top)] if top != root else []
    if loose:
        said.append(
            _(
                "{count} images lie in {folder} itself: nobody said whether they are good (first: {path})."
            ).format(count=len(loose), folder=top, path=loose[0].path.name)
        )
    if top == root:
        said += _loose(root)
    learned = top == root and not (root / "train").is_dir()
    return JudgedImages((*found, *loose), learned, tuple(said))


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _paths(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in images_in(folder) if isinstance(path, Path))


def _is_kind(folder: Path, root: Path) -> bool:
    """Whether a folder holds images of one kind: not masks, not those to learn from, not hidden."""
    known = folder.name in _MASKS or (folder.name == "train" and folder.parent == root)
    return folder.is_dir() and not known and not folder.name.startswith(".")


def _masks(root: Path, kind: str) -> dict[str, Path] | None:
    for name in _MASKS:
        folder = root / name / kind
        if folder.is_dir():
            return {path.stem: path for path in _paths(folder)}
    return None


def _mask_of(image: Path, masks: dict[str, Path]) -> Path:
    for name in (f"{image.stem}_mask", image.stem):
        if name in masks:
            return masks[name]
    raise DataError(
        _("{path} has no mask, and others of its kind have one.").format(path=image),
        _("Add the mask, or take the folder of masks away: then images alone are scored."),
        path=str(image),
    )


def _unused(root: Path, found: Iterable[Judged]) -> list[str]:
    """A sentence about masks that belong to no image."""
    used = {one.mask for one in found}
    folders = [root / name for name in _MASKS if (root / name).is_dir()]
    left = [path for folder in folders for path in _some(folder) if path not in used]
    if not left:
        return []
    return [
        _("{count} masks belong to no image and are left out (first: {path}).").format(
            count=len(left), path=left[0]
        )
    ]


def _some(folder: Path) -> list[Path]:
    """Images below a folder, if there are any."""
    found = (Path(name) for name, _size in list_files(str(folder), known_suffixes()))
    return sorted(found)


def _here(folder: Path) -> list[Path]:
    """Images that lie in a folder itself, not below."""
    return sorted(
        one
        for one in folder.iterdir()
        if one.suffix.lower() in known_suffixes() and one.is_file() and not one.name.startswith(".")
    )


def _loose(root: Path) -> tuple[str, ...]:
    """A sentence about images that lie beside the folders which say what images are."""
    left = _here(root)
    if not left:
        return ()
    return (
        _("{count} images lie in {folder} itself and are left out (first: {path}).").format(
            count=len(left), folder=root, path=left[0].name
        ),
    )


def _strays(folder: Path) -> tuple[str, ...]:
    """A sentence about files that no reader knows: a format that is not read looks like fewer images."""
    known, left = (*known_suffixes(), *_SIDECARS), list[str]()
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        left += [
            str(Path(here) / name)
            for name in names
            if not name.startswith(".") and not name.lower().endswith(known)
        ]
    if not left:
        return ()
    return (
        _("{count} files are no images that can be read and are left out (first: {path}).").format(
            count=len(left), path=min(left)
        ),
    )
