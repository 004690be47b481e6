"""No loader at all: one process that hands out views of mapped safetensors files, in a shuffled order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import needs, source


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Lists of views; nothing is copied and nothing is prefetched."""
    data = source(job)
    for epoch in job.epochs():
        order = np.random.default_rng((job.seed, epoch)).permutation(len(data))
        for first in range(0, len(order), job.batch):
            yield data.batch(order[first : first + job.batch])


if __name__ == "__main__":
    child.main(child.Loader(batches, imports=needs))
