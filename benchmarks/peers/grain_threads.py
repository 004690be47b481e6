"""Grain: a shuffled map data set, batched there, so that each of its reading threads makes whole batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import needs, source


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Batches read ahead by `threads` threads, four of them at most."""
    import grain

    data, threads = source(job), int(job.option("threads", 2))

    def join(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        columns = {name: [sample[name] for sample in samples] for name in samples[0]}
        return columns if data.ragged else {name: np.stack(column) for name, column in columns.items()}

    for epoch in job.epochs():
        chain = grain.MapDataset.source(data).seed(job.seed + epoch).shuffle()
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
        yield from chain.batch(job.batch, batch_fn=join).to_iter_dataset(reading)


if __name__ == "__main__":
    child.main(child.Loader(batches, imports=lambda job: ("grain", *needs(job))))
