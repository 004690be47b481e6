"""What is checked of pictures before a model learns from them: copies, and what betrays a class.

It warns, and says which samples belong together. Nothing of it reaches a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.near_duplicates import near_duplicates, together
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_split import SampleSplit
from caudal.data.shortcuts import Shortcut, probe
from caudal.runs.spec import RunSpec
from caudal.runs.work.kind import Glancing, Inputs
from caudal.runs.work.open_samples import Opened

_MOST_DEALT = 50_000  # samples: groups are dealt out one by one


@dataclass(frozen=True)
class PictureChecks:
    """`pairs` (count, 2) are samples that are nearly the same, of the `looked_at` that were looked at."""

    samples: SampleSet
    pairs: Ints
    looked_at: int
    complete: bool
    keeps: bool
    shortcuts: tuple[Shortcut, ...] = ()

    def groups(self, groups: Ints | None, members: Ints) -> Ints | None:
        """Groups (members,) with copies in one if they are to be kept together, else as they are."""
        if not (self.keeps and len(self.pairs)) or len(members) > _MOST_DEALT:
            return groups
        there = self.pairs[np.isin(self.pairs, members).all(1)]
        return together(groups, np.searchsorted(members, there), len(members))

    def warnings(self, split: SampleSplit, class_of: Ints | None) -> list[str]:
        """What must be said; `class_of` are the classes of all samples, below 0 where there is none."""
        return [*self._of_copies(split, class_of), *(_in_words(one) for one in self.shortcuts if one.tells)]

    def _of_copies(self, split: SampleSplit, class_of: Ints | None) -> list[str]:
        said = []
        across = self._across(split)
        if len(across):
            said.append(
                _(
                    "{count} pairs of nearly the same pictures lie on both sides of the split, the first are "
                    "{a} and {b}: figures are too good."
                ).format(count=len(across), **self._names(across))
            )
        elif len(self.pairs):
            said.append(
                _(
                    "{count} pairs of pictures are nearly the same, the first are {a} and {b}; none is on "
                    "both sides of the split."
                ).format(count=len(self.pairs), **self._names(self.pairs))
            )
        if class_of is not None:
            first, second = class_of[self.pairs[:, 0]], class_of[self.pairs[:, 1]]
            odd = self.pairs[(first != second) & (first >= 0) & (second >= 0)]
            if len(odd):
                said.append(
                    _(
                        "{count} pairs of nearly the same pictures have different classes, the first are {a} "
                        "and {b}."
                    ).format(count=len(odd), **self._names(odd))
                )
        if not self.complete:
            said.append(
                _("Copies were looked for among {count} of the pictures alone.").format(count=self.looked_at)
            )
        return said

    def _across(self, split: SampleSplit) -> Ints:
        """Pairs of which one sample is learned from, and the other chooses or scores the model."""
        learned = np.isin(self.pairs, split.train)
        judged = np.isin(self.pairs, split.validation) | np.isin(self.pairs, split.test)
        found: Ints = self.pairs[learned.any(1) & judged.any(1)]
        return found

    def _names(self, pairs: Ints) -> dict[str, str]:
        names = self.samples.columns.names
        a, b = (_short(names[self.samples.where(int(one))[0]]) for one in pairs[0])
        return {"a": a, "b": b}

    def tables(self) -> dict[str, Any]:
        """For the report: `shortcuts`, rows with `name`, `auroc`, `low`, `high`."""
        rows = [{"name": s.name, "auroc": s.auroc, "low": s.low, "high": s.high} for s in self.shortcuts]
        return {"shortcuts": rows} if rows else {}


def check_pictures(
    opened: Opened, inputs: Inputs, class_of: Ints | None, spec: RunSpec
) -> PictureChecks | None:
    """Look at the pictures of a set; `None` for other kinds of samples, and for what is far away."""
    if not isinstance(opened.kind, Glancing):
        return None
    seen = opened.kind.glance(opened.samples, inputs, opened.members, spec.data.threads)
    if seen is None:
        return None
    rows = near_duplicates(seen.grey)
    shortcuts: list[Shortcut | None] = []
    if class_of is not None:
        classes, groups = (
            class_of[seen.numbers],
            None if opened.groups is None else opened.groups[seen.numbers],
        )
        groups = together(groups, rows, len(seen.numbers))[classes >= 0]
        known = classes >= 0
        for name, values in (
            (_("size"), seen.size),
            (_("border"), seen.border),
            (_("colour cast"), seen.cast),
        ):
            shortcuts.append(probe(name, values[known], classes[known], groups, spec.seed))
    return PictureChecks(
        opened.samples,
        seen.numbers[rows],
        len(seen.numbers),
        seen.complete,
        spec.split.together,
        tuple(one for one in shortcuts if one is not None),
    )


def _in_words(one: Shortcut) -> str:
    figures = {
        "what": one.name,
        "auroc": f"{one.auroc:.2f}",
        "low": f"{one.low:.2f}",
        "high": f"{one.high:.2f}",
    }
    return _(
        "The {what} of the pictures alone tells the classes apart: AUROC {auroc} ({low} to {high}). A model "
        "may learn that instead of what is meant."
    ).format(**figures)


def _short(name: str) -> str:
    path = Path(name)
    return f"{path.parent.name}/{path.name}"
