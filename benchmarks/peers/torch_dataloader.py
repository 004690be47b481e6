"""PyTorch's DataLoader over a map-style source; `workers` processes, or none.

With workers, samples are stacked by PyTorch's own collation, which writes straight into shared memory;
rows of a table are fetched a batch at once (`__getitems__`). Two batches a worker are prefetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import child
from benchmarks.peers.sources import Source, needs, source


class MapStyle:
    """A source as DataLoader wants it."""

    def __init__(self, data: Source, at_once: bool) -> None:
        self._data, self._at_once = data, at_once

    def __len__(self) -> int:
        return len(self._data)

    def __getitems__(self, indices: list[int]) -> Any:
        import numpy as np

        if self._at_once:
            return self._data.batch(np.asarray(indices))
        return [self._data[i] for i in indices]


def collate_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch that was gathered at once."""
    import torch

    return {name: torch.as_tensor(column) for name, column in batch.items()}


def collate_ragged(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Lists: samples of different length are not stacked."""
    return {name: [sample[name] for sample in samples] for name in samples[0]}


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Shuffled batches, epoch after epoch, from the same workers."""
    import torch
    from torch.utils.data import DataLoader, default_collate

    data, workers = source(job), int(job.option("workers", 0))
    at_once = job.kind == "table"
    collate: Any = collate_ragged if data.ragged else collate_rows if at_once else default_collate
    loader: Any = DataLoader(
        MapStyle(data, at_once),  # type: ignore[arg-type]
        job.batch,
        shuffle=True,
        generator=torch.Generator().manual_seed(job.seed),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=job.option("start", "fork") if workers else None,
    )
    for _epoch in job.epochs():
        yield from loader


if __name__ == "__main__":
    child.main(child.Loader(batches, imports=lambda job: ("torch", "torch.utils.data", *needs(job))))
