"""SPDL: a pipeline of threads, a task a batch (a task a sample is a third slower).

`copied` reads ragged samples into memory in the threads; without it they hand out views of mapped files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import needs, source


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Batches that `threads` threads assemble; two wait at the end of the pipeline."""
    from spdl.pipeline import PipelineBuilder

    data, threads, copied = source(job), int(job.option("threads", 2)), bool(job.option("copied", False))

    def orders() -> Iterator[np.ndarray]:
        for epoch in job.epochs():
            order = np.random.default_rng((job.seed, epoch)).permutation(len(data))
            yield from (order[first : first + job.batch] for first in range(0, len(order), job.batch))

    def load(indices: np.ndarray) -> dict[str, Any]:
        batch = data.batch(indices)
        return {name: [v.clone() for v in column] for name, column in batch.items()} if copied else batch

    pipeline = (
        PipelineBuilder()
        .add_source(orders())
        .pipe(load, concurrency=threads)
        .add_sink(2)
        .build(num_threads=threads)
    )
    with pipeline.auto_stop():
        yield from pipeline


if __name__ == "__main__":
    child.main(child.Loader(batches, imports=lambda job: ("spdl.pipeline", *needs(job))))
