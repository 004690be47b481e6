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
from caudal.data.sample_files.base import Array, Field
from caudal.data.sample_set import SampleSet

_LABELS = ("y", "label", "labels", "target", "class")
_BLOCKS = 64
_MOST_CLASSES = 1000


def effective_share(
    batch: int, block_samples: float, open_blocks: int, blocks: int, correlation: float
) -> float:
    """Effective batch ÷ batch, for batches drawn across `open_blocks` of `blocks` with `block_samples` each.

    `correlation` is how far samples of one block agree: 0 not at all, 1 completely.
    """
    if block_samples <= 1 or batch <= 1:
        return 1.0
    rho = max(0.0, correlation)

    def effect(count: int) -> float:
        pair = (block_samples - 1) / (count * block_samples - 1)  # chance that two are of one block
        return 1 + (batch - 1) * rho * pair

    return effect(blocks) / effect(open_blocks)


def blocks_for(share: float, batch: int, block_samples: float, correlation: float, blocks: int) -> int:
    """The fewest open blocks with an effective share of at least `share`."""
    low, high = 1, blocks
    while low < high:
        middle = (low + high) // 2
        enough = effective_share(batch, block_samples, middle, blocks, correlation) >= share
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
    classes = np.unique(values)
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
            groups.append(samples.columns.extra[label.name][first:last])
            continue
        into = {one.name: np.empty(samples.shape(one, first, last), one.dtype) for one in samples.stored}
        try:
            parts.read(first, last, into)
        except UnreadableFile:
            continue  # counted and told when the stream comes to it
        groups.append(into[label.name])
    parts.close()
    return groups
