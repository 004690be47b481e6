"""Samples as they lie in files, with something to be learned of each: opened by headers and labels alone."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from caudal.core.errors import BadValues, UsageError
from caudal.core.events import Events
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.broken import Broken
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_split import SampleSplit, deal_out, given_split, none_kept, parts_to_choose_by
from caudal.runs.facts import SetFacts
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.runs.work.base import Course, Rehearsal, Tick
from caudal.runs.work.kind import Inputs
from caudal.runs.work.open_samples import SPLIT, Opened, open_samples
from caudal.runs.work.picture_checks import check_pictures
from caudal.runs.work.set_stream import MOST_SHARES, evened, least_ram, wanted_ram
from caudal.runs.work.sought import Sought, find_target
from caudal.runs.work.targets_seen import understand
from caudal.runs.work.truths_of_rows import asks_for_rows, check_rows

_FEWEST = 3  # samples of a class: to learn from, to choose by and to score


class Sets:
    """See `Work`."""

    def __init__(self, spec: RunSpec, opened: Opened) -> None:
        self.spec, self.opened = spec, opened
        self.samples, self._threads = opened.samples, spec.data.threads
        target = find_target(self.samples, spec.data.target)
        besides = {target.name, *opened.columns, SPLIT, spec.split.group or ""}
        self.inputs: Inputs = opened.kind.inputs(self.samples, frozenset(besides))
        key = opened.kind.per_row_key
        per_row, said = asks_for_rows(spec.model.config.get(key), key, self.inputs, target)
        if per_row:
            check_rows(self.samples, self.inputs, target)
            config = {**self.inputs.config, key: True}
            self.inputs = self.inputs.model_copy(update={"config": config})
        self.sought, self.values = understand(
            self.samples, target, opened.members, spec.data.positive, per_row
        )
        self.class_of = self._classes()
        self.checks = check_pictures(opened, self.inputs, self.class_of, spec)
        self.split = self._split()
        self.train = self._drawn()
        batch = spec.training.batch
        if batch > self.train.drawn:
            raise BadValues(
                _("A batch has {batch} samples, and there are {count} to train on.").format(
                    batch=batch, count=self.train.drawn
                ),
                _("Add samples, or set training.batch to {count} or less in the spec.").format(
                    count=self.train.drawn
                ),
            )
        self.facts = self._facts()
        self.warnings = (
            *opened.notes, *self.inputs.notes, *said, *self.sought.notes, *self.split.warnings,
            *self._doubts(), *(self.checks.warnings(self.split, self.class_of) if self.checks else ()),
        )  # fmt: skip

    @classmethod
    def open(cls, spec: RunSpec, tick: Tick = lambda _done, _total: None) -> Sets:
        """See `Work.open`."""
        return cls(spec, open_samples(spec, tick))

    @classmethod
    def rehearse(cls, spec: RunSpec, told: dict[str, Any]) -> Rehearsal:
        """See `Work.rehearse`."""
        from caudal.runs.work.set_rehearsal import SetRehearsal

        opened = open_samples(spec)
        return SetRehearsal(
            spec,
            opened.kind,
            opened.used,
            Inputs.model_validate(told["inputs"]),
            Sought.model_validate(told["sought"]),
        )

    def tell(self) -> dict[str, Any]:
        """See `Work.tell`."""
        return {
            "inputs": self.inputs.model_dump(mode="json"),
            "sought": self.sought.model_dump(mode="json"),
        }

    @property
    def most_blocks(self) -> int:
        """See `Work.most_blocks`: shares of the memory that the stream is better for."""
        return 2 if self.samples.direct else MOST_SHARES

    @property
    def most_ahead(self) -> int:
        """See `Work.most_ahead`: it is part of those shares."""
        return 1

    def arena_bytes(self, open_blocks: int, ahead: int) -> Bytes:
        """See `Work.arena_bytes`."""
        least, wanted = self._room
        return Bytes(least + (wanted - least) * (open_blocks - 2) // max(1, self.most_blocks - 2))

    @cached_property
    def _room(self) -> tuple[Bytes, Bytes]:
        batch = self.spec.training.batch
        wanted = wanted_ram(self.train, batch, self._threads)
        return (wanted if self.samples.direct else least_ram(self.train, batch, self._threads)), wanted

    @property
    def steps(self) -> int:
        """See `Work.steps`."""
        return self.spec.training.steps

    @property
    def index_bytes(self) -> int:
        """See `Work.index_bytes`."""
        columns = self.samples.columns
        arrays = [*columns.row_ends.values(), *(columns.places or {}).values(), *columns.extra.values()]
        held = sum(a.nbytes for a in arrays if not isinstance(a, np.memmap))
        held += sum(texts.nbytes for texts in self.opened.columns.values())
        return held + 24 * len(self.samples)  # the parts of the split, and labels

    @property
    def members(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `Work.members`: there may be millions, and the seed says which."""
        return (), ()

    def start(self, plan: TrainPlan, folder: RunFolder, again: bool, events: Events) -> Course:
        """See `Work.start`."""
        from caudal.runs.work.set_course import SetCourse, look

        for name, why in self.samples.unreadable:
            events(Broken(name, 0, 0, why).event)
        self.samples.broken.listen(events)  # its streams note there what they cannot read
        learned = self.samples.only(self.split.train)
        statistics = look(
            self.opened.kind, learned, self.inputs, self.spec, folder, again, self.samples.digest
        )
        counts = None
        if self.class_of is not None and self.spec.training.balance != "samples":
            classes = self.class_of[self.split.train]
            counts = np.bincount(classes[classes >= 0], minlength=len(self.sought.names))
        return SetCourse(
            plan,
            self.opened,
            self.split,
            self.inputs,
            self.sought,
            statistics,
            counts,
            self.train,
            self.checks.tables() if self.checks else {},
        )

    def _classes(self) -> Ints | None:
        """The class of every sample, below 0 where there is none; `None` where no class is learned."""
        if self.values is None or self.sought.kind not in ("binary", "multiclass"):
            return None
        return self.sought.classes_of(self.values)

    def _drawn(self) -> SampleSet:
        """The samples to train on, as often as they are drawn."""
        train = self.split.train
        if self.spec.training.balance != "samples":
            return self.samples.only(train)
        if self.class_of is None:
            raise UsageError(
                _("There are no classes of “{field}” to draw evenly from.").format(field=self.sought.field),
                _("Leave training.balance out of the spec."),
            )
        return evened(self.samples, train, self.class_of[train], self.spec.seed)

    def _split(self) -> SampleSplit:
        spec, opened = self.spec, self.opened
        if spec.split.fold >= spec.split.folds:
            raise UsageError(
                _("split.fold is {fold} and there are {folds} folds.").format(
                    fold=spec.split.fold, folds=spec.split.folds
                ),
                _("Folds are counted from 0."),
            )
        members = opened.members
        labels = self.class_of
        if labels is not None:
            known = labels[members] >= 0
            members, lost = members[known], int((~known).sum())
        else:
            lost = 0
        notes = (_("{count} samples without a label are left out.").format(count=lost),) if lost else ()
        if opened.split is not None and spec.split.given:
            codes, names = opened.split
            given = given_split(codes[members], names, spec.seed, self._fewest_kept)
            if given is not None:
                if given.test is given.validation:
                    notes = (
                        *notes,
                        _("The data name no part for scoring alone: what is scored also chose the model."),
                    )
                return _numbered(given, members, notes)
            notes = (*notes, _("The data name a part to train on alone; what is scored is dealt out of it."))
        groups = None if opened.groups is None else opened.groups[members]
        if self.checks is not None:
            groups = self.checks.groups(groups, members)
        own = None if labels is None else labels[members]
        outer = deal_out(own, groups, len(members), spec.seed, spec.split.folds, spec.split.fold)
        train = outer.train
        alone = len(train) if groups is None else len(np.unique(groups[train]))
        if alone < 2:
            note = _("There is too little to choose the model by: it is chosen by what it is scored on.")
            return _numbered(outer, members, (*notes, note))
        parts = min(parts_to_choose_by(alone), alone)
        if len(train) // parts < self._fewest_kept:
            said = (*notes, none_kept(len(train)))
            return _numbered(SampleSplit(train, train[:0], outer.test, outer.warnings), members, said)
        inner = deal_out(
            None if own is None else own[train],
            None if groups is None else groups[train],
            len(train),
            spec.seed + 1,
            parts,
            0,
        )
        found = SampleSplit(train[inner.train], train[inner.validation], outer.test, outer.warnings)
        return _numbered(found, members, notes)

    @property
    def _fewest_kept(self) -> int:
        """Fewer samples than these would choose nothing if kept back: they are better learned from."""
        training = self.spec.training
        chooses_model = training.keep == "best" or training.patience > 0
        return 0 if chooses_model else self.opened.kind.fewest_to_choose

    def _doubts(self) -> list[str]:
        """What makes a figure doubtful before there is one: broken samples, and classes of few samples."""
        said = list(self.samples.broken.words())
        if self.class_of is not None:
            mine = self.class_of[self.opened.members]
            counts = np.bincount(mine[mine >= 0], minlength=len(self.sought.names))
            said += [
                _("Class “{name}” has {count} samples: too few to be learned and scored.").format(
                    name=name, count=count
                )
                for name, count in zip(self.sought.names, counts.tolist(), strict=True)
                if count < _FEWEST
            ]
        return said

    def _facts(self) -> SetFacts:
        samples = self.samples
        return SetFacts(
            count=len(self.opened.members),
            held_out=len(self.split.test),
            files=len(samples.columns.names),
            fields=tuple(f"{one.name} {one.dtype}{list(one.shape)}" for one in samples.fields[:8]),
            shape=self.inputs.shape,
            target=self.sought.line(),
            decoded=Bytes(samples.total_bytes),
            on_disk=Bytes(int(samples.columns.sizes.sum())),
            samples_per_epoch=self.train.drawn,
        )


def _numbered(split: SampleSplit, members: Ints, notes: tuple[str, ...]) -> SampleSplit:
    """With the numbers that the samples have in the set."""
    return SampleSplit(
        members[split.train], members[split.validation], members[split.test], (*notes, *split.warnings)
    )
