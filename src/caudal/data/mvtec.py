"""Good and defect images in folders, as MVTec AD lays them out: what is good, what is not, and where.

`train/good`, `test/good`, `test/<defect>`, and masks in `ground_truth/<defect>` under the image's name, with
or without `_mask`. `good` and `defect` folders alone are understood as well. No image is opened here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.data.pairs import images_in

GOOD = "good"
_MASKS = ("ground_truth", "masks")


@dataclass(frozen=True, slots=True)
class Judged:
    """An image, whether it is `anomalous` (`None`: nobody said), its `kind`, and its mask if there is one."""

    path: Path
    kind: str
    anomalous: bool | None
    mask: Path | None = None


def good_images(root: Path) -> list[Path]:
    """The images to learn from: those in `train/good` or `good`, else all below `root`.

    Raises:
        UnreadableFile: there is none.
    """
    for folder in (root / "train" / GOOD, root / "train", root / GOOD):
        if folder.is_dir():
            return [Path(path) for path in images_in(folder) if isinstance(path, Path)]
    return [Path(path) for path in images_in(root) if isinstance(path, Path)]


def judged_images(root: Path) -> list[Judged]:
    """The images to score: those below `test`, or in folders of which one is `good`, else all, unjudged.

    Raises:
        UnreadableFile: there is none.
        DataError: a folder of masks has none for an image of its kind.
    """
    top = root / "test" if (root / "test").is_dir() else root
    if not (top / GOOD).is_dir() and top == root:
        return [Judged(Path(path), "", None) for path in images_in(root) if isinstance(path, Path)]
    found: list[Judged] = []
    for folder in sorted(one for one in top.iterdir() if one.is_dir() and one.name not in _MASKS):
        masks = _masks(root, folder.name) if folder.name != GOOD else None
        for path in images_in(folder):
            assert isinstance(path, Path)
            mask = _mask_of(path, masks) if masks is not None else None
            found.append(Judged(path, folder.name, folder.name != GOOD, mask))
    return found


def _masks(root: Path, kind: str) -> dict[str, Path] | None:
    for name in _MASKS:
        folder = root / name / kind
        if folder.is_dir():
            return {path.stem: path for path in images_in(folder) if isinstance(path, Path)}
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
