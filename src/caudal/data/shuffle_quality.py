"""How good a shuffle is, as a figure: the batch of independent samples that is worth as much.

Samples drawn from a few blocks at a time resemble each other as far as the samples of a block do. The
gradient of such a batch varies as that of a smaller, independent one: that is its effective size. The
formula is the design effect of two-stage cluster sampling (Kish, "Survey Sampling", 1965, ch. 5 and 6),
beside that of a perfect shuffle of the same set.
"""

from __future__ import annotations

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.seeds import generator
from caudal.data.open_parts import OpenParts
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.turns import Turns

_LABELS = ("y", "label", "labels", "target", "class")
_BLOCKS = 64
_MOST_CLASSES = 1000
_TURNS = 48  # or batches of an epoch, looked at to count pairs
_LONG_TURN = 16  # batches
_LABELS_OF_BLOCK = 1024  # are enough to see how far they agree


def effective_share(ends: Ints, batch: int, open_blocks: int, correlation: float) -> float:
    """Effective batch ÷ batch, for batches drawn across `open_blocks` of the blocks that end at `ends`.

    `correlation` is how far samples of one block agree: 0 not at all, 1 completely. How often two samples of
    a batch are of one block follows from the order itself, which costs no reading.
    """
    if batch <= 1 or len(ends) == int(ends[-1]) or correlation <= 0:
        return 1.0
    chances = [_pair_chance(ends, batch, count) for count in (len(ends), open_blocks)]
    ideal, drawn = (1 + (batch - 1) * correlation * chance for chance in chances)
    return min(1.0, ideal / drawn)


def _pair_chance(ends: Ints, batch: int, open_blocks: int) -> float:
    """The chance that two samples of a batch are of one block."""
    turns = Turns(ends, open_blocks, 0, 0)
    if turns.mean_turn >= _LONG_TURN * batch:
        return turns.pair_chance(_TURNS)
    # Batches that reach over several turns are counted in the order itself.
    same = pairs = 0.0
    batches = max(1, turns.samples // batch)
    for k in sorted({int(at) for at in np.linspace(0, batches - 1, _TURNS)}):
        drawn = turns.draw(k * batch, min((k + 1) * batch, turns.samples))
        counts = np.bincount(drawn.visit - drawn.visit.min()).astype(np.float64)
        same += (counts * (counts - 1)).sum()
        pairs += len(drawn.visit) * (len(drawn.visit) - 1)
    return same / pairs if pairs else 0.0


def blocks_for(share: float, ends: Ints, batch: int, correlation: float) -> int:
    """The fewest open blocks with an effective share of at least `share`."""
    low, high = 1, len(ends)
    while low < high:
        middle = (low + high) // 2
        enough = effective_share(ends, batch, middle, correlation) >= share
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def correlation_of(samples: SampleSet, seed: int) -> float | None:
    """How far the labels of samples of one block agree, from up to 64 blocks; `None` without labels.

    The intraclass correlation of one-way analysis of variance, over class indicators for whole numbers.
    """
    label = _label(samples)
    if label is None or samples.direct:
        return None
    blocks = len(samples.columns.block_ends)
    chosen = generator(seed, "correlation").permutation(blocks)[:_BLOCKS]
    groups = _labels_of(samples, label, np.sort(chosen))
    return intraclass_correlation(groups) if groups else None


def intraclass_correlation(groups: list[Array]) -> float:
    """The intraclass correlation of values (n,) in groups, in [0, 1]."""
    values = np.concatenate(groups)
    group = np.repeat(np.arange(len(groups)), [len(one) for one in groups])
    ordered = np.sort(values)  # numpy.unique would first load numpy.ma, which takes as long as all of this
    classes = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    if values.dtype.kind in "iub" and len(classes) <= _MOST_CLASSES:
        table = np.zeros((len(groups), len(classes)))
        np.add.at(table, (group, np.searchsorted(classes, values)), 1)
        sizes = table.sum(1)
        between = (table**2 / sizes[:, None]).sum() - (table.sum(0) ** 2).sum() / len(values)
        total = len(values) - (table.sum(0) ** 2).sum() / len(values)
    else:
        values = values.astype(np.float64)
        sizes = np.bincount(group).astype(np.float64)
        sums = np.bincount(group, values)
        between = (sums**2 / sizes).sum() - values.sum() ** 2 / len(values)
        total = (values**2).sum() - values.sum() ** 2 / len(values)
    if len(groups) < 2 or len(values) <= len(groups) or total <= 0:
        return 1.0 if total > 0 else 0.0
    mean_between = between / (len(groups) - 1)
    mean_within = (total - between) / (len(values) - len(groups))
    size = (len(values) - (sizes**2).sum() / len(values)) / (len(groups) - 1)
    return float(np.clip((mean_between - mean_within) / (mean_between + (size - 1) * mean_within), 0, 1))


def _label(samples: SampleSet) -> Field | None:
    scalar = {one.name: one for one in samples.fields if one.shape == ()}
    return next((scalar[name] for name in _LABELS if name in scalar), None)


def _labels_of(samples: SampleSet, label: Field, blocks: Array) -> list[Array]:
    groups, parts = [], OpenParts(samples, most=2)
    for block in blocks.tolist():
        first, last = samples.block_begin(block), int(samples.columns.block_ends[block])
        if label.name in samples.columns.extra:
            groups.append(samples.columns.extra[label.name][first:last][:_LABELS_OF_BLOCK])
            continue
        # Of raw files the labels can be read alone.
        wanted = [label] if samples.raw else samples.stored
        into = {one.name: np.empty(samples.shape(one, first, last), one.dtype) for one in wanted}
        try:
            parts.read(first, last, into)
        except UnreadableFile:
            continue  # counted and told when the stream comes to it
        groups.append(into[label.name][:_LABELS_OF_BLOCK])
    parts.close()
    return groups
