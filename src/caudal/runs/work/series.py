"""Sequences: rows of features in time, ragged or all as long; or tables whose columns are the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from caudal.core.errors import DataError
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.core.units import MIB
from caudal.data.augment_rows import augment_rows
from caudal.data.batches import Batch
from caudal.data.length_buckets import by_length, length_parts
from caudal.data.sample_files.base import Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import field_of
from caudal.runs.samples import open_set
from caudal.runs.spec import RunSpec
from caudal.runs.work.encoding import Encoding, find_kinds, kinds_note
from caudal.runs.work.features import Features, Moments, Scaling
from caudal.runs.work.kind import Inputs, SampleTask, Statistics
from caudal.runs.work.missing import Watched, missing_words
from caudal.runs.work.set_stream import scoring_batches
from caudal.runs.work.sought import Sought, joined

if TYPE_CHECKING:
    from torch import nn

    from caudal.training.step import Parts

NAMES = ("x", "sequence", "series", "features", "signal", "data", "inputs", "input")
LOOKED_AT = 4096  # samples
LOOKED_AT_LEAST = 64
_LOOKED_AT_BYTES = 512 * MIB
_AT_ONCE_BYTES = 8 * MIB
_ENOUGH = 50  # samples of each class
FEWEST_TO_CHOOSE = 2 * _ENOUGH


class Series:
    """See `Kind`."""

    per_row_key: ClassVar[str] = "per_step"
    takes_groups: ClassVar[bool] = False
    fewest_to_choose: ClassVar[int] = FEWEST_TO_CHOOSE

    def open_set(self, spec: RunSpec, tick: Callable[[int, int], None]) -> SampleSet:
        """See `Kind.open_set`."""
        return open_set(
            spec.data.images[0], spec.data.samples, None, False, spec.data.threads, tick, tolerant=True,
            labels=spec.data.labels,
        )  # fmt: skip

    def inputs(self, samples: SampleSet, besides: frozenset[str]) -> Inputs:
        """See `Kind.inputs`."""
        others = [one for one in samples.fields if one.name not in besides]
        found = [one for one in others if one.shape != () and one.dtype.kind in "fiu"]
        usual = [one for one in found if one.name.lower() in NAMES]
        unused = [one.name for one in found if len(found) > 1 and one not in usual[:1]]
        found = usual[:1] if len(found) > 1 else found
        if not found:
            return _columns(samples, others)
        one = found[0]
        count = math.prod(one.row_shape if one.ragged else one.row_shape[1:])
        steps = 0 if one.ragged else int(one.shape[0] or 0)
        shape = _("sequences of {count} features").format(count=count)
        if steps:
            shape = _("{steps} steps of {count} features").format(steps=steps, count=count)
        made = _encoded(samples, (one.name,), count, shape, steps)
        if not unused:
            return made
        note = _("“{field}” is learned from; not used are: {others}.").format(
            field=one.name, others=", ".join(unused[:8])
        )
        return made.model_copy(update={"notes": (note, *made.notes)})

    def statistics(self, samples: SampleSet, inputs: Inputs, threads: int, seed: int) -> Statistics:
        """See `Kind.statistics`: from some thousand samples."""
        columns = inputs.stored[0]
        moments = Moments(columns, inputs.kinds.get(inputs.fields[0], ()))
        for batch in some_batches(samples, threads, seed):
            whole = slice(0, batch.size)
            ragged = _ragged(samples, inputs)
            rows = batch.numpy(inputs.fields[0]).values if ragged else _beside(batch, inputs, whole)
            moments.add(rows.reshape(-1, columns).astype(np.float64))
        scaling = moments.result()
        some = looks_at(samples) < samples.drawn
        said = missing_words(scaling.missing, some=some)
        return Statistics(values=scaling.model_dump(mode="json"), warnings=said)

    def statistics_of(self, model: nn.Module) -> Statistics | None:
        """See `Kind.statistics_of`: none comes from elsewhere."""
        return None

    def make_task(
        self, spec: RunSpec, sought: Sought, counts: Ints | None, chosen: Mapping[str, Any]
    ) -> SampleTask:
        """See `Kind.make_task`."""
        from caudal.tasks.sequence.task import Sequence

        return Sequence(target_of(spec, sought, counts, chosen))

    def choose(self, scorer: Any) -> dict[str, Any]:
        """See `Kind.choose`: the thresholds of best F1."""
        return thresholds_of(scorer)

    def prepare(
        self,
        spec: RunSpec,
        inputs: Inputs,
        sought: Sought,
        statistics: Statistics | None,
        device: str,
        training: bool,
        samples: SampleSet,
    ) -> Callable[[Batch, slice], tuple[Any, Any]]:
        """See `Kind.prepare`: `Sequences`, and the truth of each or of its steps."""
        import torch

        from caudal.models.ragged import Sequences, step_targets

        columns = inputs.stored[0]
        scaling = Scaling.model_validate(statistics.values) if statistics else None
        scale = Features(scaling, columns, inputs.kinds.get(inputs.fields[0], ()), counts=not training)

        is_ragged = _ragged(samples, inputs)  # whatever the lengths of those that were learned from

        def changed(rows: Any, lengths: Ints, batch: Batch, chosen: Ints) -> Any:
            if not training:
                return rows
            number, free = scale.encode.is_number, not sought.per_row
            numbers = batch.samples[chosen]
            return augment_rows(
                rows, lengths, number, spec.augmentation, spec.seed, batch.epoch, numbers, free
            )

        def prepare(batch: Batch, part: slice) -> tuple[Any, Any]:
            chosen = np.arange(batch.size)[part]
            if not is_ragged:
                beside = _beside(batch, inputs, part)
                rows, lengths = beside.reshape(-1, columns), np.full(len(chosen), beside.shape[1])
            else:
                ragged = batch.numpy(inputs.fields[0])
                chosen = by_length(ragged.lengths)[part] if training else chosen
                lengths = ragged.lengths[chosen]
                rows = joined(ragged, chosen).reshape(-1, columns)
            rows = changed(scale(rows), lengths, batch, chosen)
            x = Sequences.from_rows(torch.from_numpy(rows), torch.from_numpy(np.cumsum(lengths)))
            y = torch.from_numpy(sought.truth(batch, chosen, int(lengths.sum())))
            if sought.per_row:
                y = step_targets(y, torch.cumsum(x.lengths_B, 0))
            return x.to(device), y.to(device, non_blocking=True)

        return Watched(prepare, {"": scale})

    def parts(self, samples: SampleSet, inputs: Inputs) -> Parts | None:
        """See `Kind.parts`: alike in length, so that little is padding, which counts too."""
        if not _ragged(samples, inputs):
            return None
        name = inputs.fields[0]
        longest = int(samples.rows(name, self.largest(samples, inputs, 1))[0])

        def parts(batch: Any, micro_batch: int) -> Iterator[slice]:
            lengths = batch.numpy(name).lengths
            return iter(length_parts(lengths[by_length(lengths)], micro_batch * longest))

        return parts

    def places(self, samples: SampleSet, inputs: Inputs, numbers: Ints) -> Ints:
        """See `Kind.places`: steps."""
        if _ragged(samples, inputs):
            return samples.rows(inputs.fields[0], numbers)
        one = field_of(samples, inputs.fields[0])
        steps = int(one.shape[0] or 0) if one is not None and one.shape else len(inputs.fields)
        return np.full(len(numbers), steps, np.int64)

    def largest(self, samples: SampleSet, inputs: Inputs, count: int) -> Ints:
        """See `Kind.largest`: the longest."""
        if not _ragged(samples, inputs):
            return drawn_from(samples)[:count]
        return longest_of(samples, inputs.fields[0], count)


def drawn_from(samples: SampleSet) -> Ints:
    """Numbers of the samples that streams draw."""
    chosen: Ints = samples.chosen.samples if samples.chosen else np.arange(len(samples), dtype=np.int64)
    return chosen


def longest_of(samples: SampleSet, name: str, count: int) -> Ints:
    """Numbers of the chosen samples with most rows of a ragged field, in growing order."""
    members = drawn_from(samples)
    rows = samples.rows(name, members)
    count = min(count, len(rows))
    found: Ints = np.sort(members[np.argpartition(rows, -count)[-count:]]).astype(np.int64)
    return found


def looks_at(samples: SampleSet) -> int:
    """Of how many samples `some_batches` are."""
    enough = LOOKED_AT_LEAST + int(_LOOKED_AT_BYTES * len(samples) / max(1, samples.total_bytes))
    return min(LOOKED_AT, enough, samples.drawn)


def some_batches(samples: SampleSet, threads: int, seed: int) -> Iterator[Batch]:
    """Batches of some thousand of the samples, drawn at random."""
    members = drawn_from(samples)
    drawn = generator(seed, "look").permutation(len(members))[: looks_at(samples)]
    chosen = samples.only(np.sort(members[drawn]).astype(np.int64))
    at_once = max(1, min(64, int(_AT_ONCE_BYTES / max(1, chosen.largest_bytes(1)[0]))))
    with scoring_batches(chosen, at_once, threads) as stream:
        yield from stream


def thresholds_of(scorer: Any) -> dict[str, Any]:
    """The thresholds of best F1, where there is enough to choose by: on few samples chance would choose."""
    supports = [v for key, v in scorer.result().items() if key.startswith("support_") and v is not None]
    best = scorer.best_thresholds() if supports and min(supports) >= _ENOUGH else None
    return {} if best is None else {"thresholds": list(best)}


def target_of(spec: RunSpec, sought: Sought, counts: Ints | None, chosen: Mapping[str, Any]) -> Any:
    """What is told, for tasks that learn from features."""
    from caudal.tasks.classification.task import balanced_weights
    from caudal.tasks.targets import Target

    weights = None
    if spec.training.balance and counts is not None and (counts > 0).all():
        weights = balanced_weights(counts.tolist())
    return Target(
        kind=sought.kind,
        names=sought.names,
        weights=weights,
        means=sought.means,
        deviations=sought.deviations,
        thresholds=tuple(chosen.get("thresholds", ())),
    )


def _columns(samples: SampleSet, others: list[Field]) -> Inputs:
    """A table without a field of sequences: its columns of numbers are the steps of one."""
    names = tuple(
        one.name for one in others if one.shape == () and one.dtype.kind in "fiu" and not one.categories
    )
    if len(names) < 2:
        raise DataError(
            _("{path} holds no field of sequences.").format(path=samples.root),
            _("Its fields are: {names}. Name a field of sequences “x”.").format(
                names=", ".join(one.name for one in samples.fields)
            ),
        )
    note = _("The {count} columns from {first} to {last} are taken as the steps of a sequence.").format(
        count=len(names), first=names[0], last=names[-1]
    )
    shape = _("{steps} steps of {count} features").format(steps=len(names), count=1)
    made = _encoded(samples, names, 1, shape, len(names))
    return made.model_copy(update={"notes": (note, *made.notes)})


def _encoded(samples: SampleSet, names: tuple[str, ...], columns: int, shape: str, steps: int) -> Inputs:
    """`columns` features that some fields have in a row, and which of them are kinds."""
    kinds = find_kinds(samples, names, columns)
    return Inputs(
        fields=names,
        count=Encoding(columns, kinds).width,
        shape=shape,
        steps=steps,
        notes=kinds_note(names[0], kinds),
        kinds={names[0]: kinds} if kinds else {},
        stored=(columns,),
    )


def _beside(batch: Batch, inputs: Inputs, part: slice) -> Any:
    """Features (B, T, F) of samples that are all as long."""
    if len(inputs.fields) > 1:
        return np.stack([batch.numpy(name)[part] for name in inputs.fields], 1)[:, :, None]
    found = batch.numpy(inputs.fields[0])[part]
    return found.reshape(*found.shape[:2], inputs.stored[0])


def _ragged(samples: SampleSet, inputs: Inputs) -> bool:
    one = field_of(samples, inputs.fields[0])
    return one is not None and one.ragged
