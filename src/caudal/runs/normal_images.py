"""Which images a run over normal ones learns from, which it scores, and whether some are both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from caudal.core.errors import CaudalError, UsageError
from caudal.core.messages import _
from caudal.data.copies import copies_between
from caudal.data.locations import located
from caudal.data.mvtec import Judged, good_images, judged_images
from caudal.data.pairs import images_in
from caudal.data.url import Location
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan


@dataclass(frozen=True)
class NormalImages:
    """Images to learn from, and those that somebody judged; `shared` are good ones that are both.

    `warnings` are what has to be said of the folders and tables that were looked at.
    """

    good: tuple[Location, ...]
    judged: tuple[Judged, ...]
    shared: frozenset[Location]
    warnings: tuple[str, ...]

    def scored(self, held_out: Iterable[Location]) -> tuple[Judged, ...]:
        """What a run scores at its end: of images that are shared the held-out ones alone.

        None where nobody named anything anomalous and all that is good was to be learned from.
        """
        apart = tuple(one for one in self.judged if one.path not in self.shared)
        if not any(one.anomalous for one in apart):
            return apart
        mine = self.shared.intersection(held_out)
        return (*apart, *(one for one in self.judged if one.path in mine))


def find_images(places: Sequence[str]) -> NormalImages:
    """Look through folders, tables and files; no image is opened.

    Raises:
        UnreadableFile: nothing there to learn from.
        DataError: a mask is missing; a table does not say what it has to.
        BadPair: a table names a file that is not there.
    """
    good, judged = list[Location](), list[Judged]()
    shared, said = set[Location](), list[str]()
    for text in places:
        root = located(text)
        if not isinstance(root, Path) or not root.exists():
            good += images_in(root)
            continue
        learned = good_images(root)
        good += learned.paths
        said += learned.warnings
        if root.is_dir() or root.suffix.lower() == ".csv":
            known = judged_images(root)
            said += known.warnings
            if known.any_judged:
                judged += known.images
            if known.learned:
                shared.update(learned.paths)
    return NormalImages(tuple(good), tuple(judged), frozenset(shared), tuple(dict.fromkeys(said)))


def learned_by(run: Path) -> tuple[Location, ...]:
    """The images that a run learned from, as its plan names them.

    None where there is a model alone, or where its data are elsewhere or others by now.
    """
    folder = RunFolder(run)
    if not folder.plan.is_file():
        return ()
    try:
        plan = TrainPlan.model_validate(folder.read_json(folder.plan))
        good = find_images(plan.spec.data.images).good
    except (CaudalError, ValueError):
        return ()
    if len(good) != len({*plan.train, *plan.held_out}):
        return ()
    return tuple(good[i] for i in plan.train)


def without_learned(
    judged: Sequence[Judged], learned: Sequence[Location], shared: bool
) -> tuple[list[Judged], list[str]]:
    """What is to be scored of `judged`, and what must be said of images that were `learned` from.

    Where the folder of good images is the one that is learned from (`shared`), they are left out as far as
    others are left; else they are scored, as somebody put them there.
    """
    copies = copies_between(learned, [one.path for one in judged])
    kept = [one for k, one in enumerate(judged) if k not in copies or one.anomalous]
    if not shared or not any(one.anomalous is False for one in kept):
        return list(judged), copies_warning(learned, judged, copies)
    left = len(judged) - len(kept)
    note = _("{count} good images were learned from and are left out; those that were held out are scored.")
    said = [note.format(count=left)] if left else []
    odd = {k: twin for k, twin in copies.items() if judged[k].anomalous}
    return kept, [*said, *copies_warning(learned, judged, odd)]


def copies_warning(
    learned: Sequence[Location], judged: Sequence[Judged], copies: dict[int, int]
) -> list[str]:
    """A sentence about images to score that have the content of ones to learn from."""
    if not copies:
        return []
    some, twin = next(iter(copies.items()))
    return [
        _(
            "{count} images to score are copies of ones to learn from, which flatters the model "
            "(first: {path} is {twin})."
        ).format(count=len(copies), path=judged[some].path, twin=learned[twin])
    ]


def says_nothing(key: str) -> UsageError:
    """The refusal of a key or option that would be passed over, while somebody thinks it counts."""
    return UsageError(
        _("{key} says nothing to the task anomaly.").format(key=key),
        _(
            "Leave it out: folders say what is good and where masks are, or a CSV with the columns file, "
            "label and mask that is given as the data."
        ),
    )


def refuse_besides(masks: object, labels: object) -> None:
    """Refuse options that say what images are, as folders or a table do that.

    Raises:
        UsageError: masks or labels were given.
    """
    if masks or labels:
        raise says_nothing("--masks" if masks else "--labels")
