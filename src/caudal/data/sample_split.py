"""Which samples are held out: as the data say, else dealt out by class, groups never torn apart.

Works on columns (labels, groups) of all samples; where they come from is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues, DataError
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.sample_files.base import Ints

Flags = npt.NDArray[np.bool_]

_ENOUGH = 50  # samples: fewer would choose by chance
_MOST_NAMED = 6
_NUMBERS = {"0": "train", "1": "val", "2": "test"}
TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing")


@dataclass(frozen=True)
class SampleSplit:
    """Numbers of the samples to learn from, to choose by and to score at the end, each in growing order.

    `validation` and `test` are the same where the data name no test part. `validation` is empty where so few
    would choose nothing.
    """

    train: Ints
    validation: Ints
    test: Ints
    warnings: tuple[str, ...] = ()


def parts_to_choose_by(samples: int) -> int:
    """One in so many samples to learn from is kept to choose the model by.

    A tenth, as is usual; more where that is not enough to choose by, and at most a fifth.
    """
    return max(5, min(10, samples // _ENOUGH))


def none_kept(samples: int) -> str:
    """What is to be said where all `samples` are learned from."""
    return _(
        "All {count} samples of the training part are learned from: a part of them would choose nothing."
    ).format(count=samples)


def called(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the values of a column `split` are called, and what is to be said of it where they are numbers."""
    if not names or not set(names) <= set(_NUMBERS):
        return tuple(names), ()
    return tuple(_NUMBERS[name] for name in names), (
        _("The numbers of “split” are taken as 0 train, 1 val, 2 test."),
    )


def given_split(codes: Ints, names: tuple[str, ...], seed: int, fewest: int = 0) -> SampleSplit | None:
    """The split that a column of `names` tells (`codes` below 0: none); `None` if all is to be learned from.

    Without a part to choose by, a share of what is to be learned from is taken for it, unless that would be
    fewer than `fewest` samples.

    Raises:
        BadValues: it names no part to learn from.
    """
    of = {kind: _members(codes, names, kind) for kind in (TRAIN, VALIDATION, TEST)}
    train, validation, test = of[TRAIN], of[VALIDATION], of[TEST]
    if not len(train):
        there = sorted({names[code] for code in np.unique(codes).tolist() if code >= 0})
        raise BadValues(
            _("The data's “split” names no part to train on; it holds: {names}.").format(
                names=", ".join(there[:_MOST_NAMED]) or "-"
            ),
            _("Call the parts train, val and test, or set split.given = false in the spec."),
        )
    if not len(validation) + len(test):
        return None
    left = len(codes) - len(train) - len(validation) - len(test)
    lost = [_("{count} samples are in no part that is known, and are left out.").format(count=left)]
    notes = [
        *(lost if left else ()),
        _("The data name the parts to train on and to score; they are used as given."),
    ]
    if not len(validation):
        count = max(1, len(train) // parts_to_choose_by(len(train)))
        if count < fewest:
            return SampleSplit(train, validation, test, (*notes, none_kept(len(train))))
        drawn = generator(seed, "split").permutation(len(train))[:count]
        validation, train = np.sort(train[drawn]), np.delete(train, drawn)
        notes.append(
            _("{count} samples of the training part are kept to choose the model by.").format(count=count)
        )
    return SampleSplit(train, validation, test if len(test) else validation, tuple(notes))


def _members(codes: Ints, names: tuple[str, ...], kinds: tuple[str, ...]) -> Ints:
    wanted = [k for k, name in enumerate(names) if name.lower() in kinds]
    return np.flatnonzero(np.isin(codes, wanted)).astype(np.int64)


def deal_out(
    labels: npt.NDArray[np.int64] | None, groups: Ints | None, samples: int, seed: int, folds: int, fold: int
) -> SampleSplit:
    """Hold out part `fold` of `folds`: every class in its share, and of each group all or nothing.

    `labels` (samples,) are class numbers, below 0 where unknown; `groups` (samples,) number those that belong
    together. Groups go one by one, the largest first and in an order drawn from the seed, to the part that
    lacks most of their classes.

    Raises:
        DataError: there are fewer groups than parts.
    """
    groups = np.arange(samples) if groups is None else groups
    __, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1 if samples else 0
    if count < folds:
        raise DataError(
            _("There are {found} samples or groups of them to deal out into {folds} parts.").format(
                found=count, folds=folds
            ),
            _("Add samples, or set split.folds to {found} or less in the spec (at least 2).").format(
                found=max(2, count)
            ),
        )
    classes = np.zeros(samples, np.int64) if labels is None else labels + 1
    part = _dealt(group, count, classes, seed, folds)
    held = part[group] == fold
    train, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    warnings = []
    if labels is not None:
        lacking = np.setdiff1d(labels[labels >= 0], labels[train])
        if len(lacking):
            warnings.append(
                _("{count} classes are in the held-out part alone; they cannot be learned.").format(
                    count=len(lacking)
                )
            )
    return SampleSplit(train, held_out, held_out, tuple(warnings))


def _dealt(group: Ints, count: int, classes: Ints, seed: int, folds: int) -> Ints:
    """The part of each group, (count,)."""
    sizes = np.bincount(group, minlength=count)
    order = generator(seed, "split").permutation(count)
    if (sizes == 1).all():  # samples alone: by class in turn, which needs no search
        of_group = np.zeros(count, np.int64)
        of_group[group] = classes
        order = order[np.argsort(of_group[order], kind="stable")]
        part = np.empty(count, np.int64)
        part[order] = np.arange(count) % folds
        return part
    kinds = int(classes.max()) + 1
    table = np.zeros((count, kinds))
    np.add.at(table, (group, classes), 1)
    order = order[np.argsort(-sizes[order], kind="stable")]
    wanted, held = table.sum(0) / folds, np.zeros((folds, kinds))
    share = 1 / np.maximum(wanted, 1e-9)
    part = np.empty(count, np.int64)
    for one in order.tolist():
        # How far from its share each part would be; an emptier part wins a tie.
        lack = ((wanted - held) * share * table[one]).sum(1)
        best = int(np.lexsort((held.sum(1), -lack))[0])
        part[one] = best
        held[best] += table[one]
    return part
