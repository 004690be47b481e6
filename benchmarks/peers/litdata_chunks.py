"""LitData in its own format: 64 MB chunks, its streaming loader, `workers` processes.

`convert` writes the chunks: tensors as they are, pictures as their JPEG bytes, rasters as the patches that
the other loaders would cut (so its rate on rasters is that of a repacked copy, not of reading rasters).
Decoding samples by the batch is switched off: with these sizes its default is four to ten times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import needs, picture, source

CHUNK = "64MB"


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Shuffled batches from the chunks."""
    from litdata import StreamingDataLoader, StreamingDataset

    workers = int(job.option("workers", 0))
    data = StreamingDataset(job.own, shuffle=True, seed=job.seed, batch_decode=False)
    loader = StreamingDataLoader(
        data,
        batch_size=job.batch,
        num_workers=workers,
        collate_fn=partial(collate, job.kind, bool(job.option("scaled", False))),
        prefetch_factor=2 if workers else None,
        persistent_workers=workers > 0,
    )
    for _epoch in job.epochs():
        yield from loader


def collate(kind: str, scaled: bool, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack what has one shape; decode pictures here, in the worker."""
    import torch
    from torch.utils.data import default_collate

    if kind == "photographs":
        return {"x": default_collate([torch.from_numpy(picture(s["jpeg"], scaled)) for s in samples])}
    if kind == "ragged":
        return {name: [sample[name] for sample in samples] for name in samples[0]}
    return {name: default_collate([torch.as_tensor(s[name]) for s in samples]) for name in samples[0]}


def convert(job: child.Job) -> None:
    """Write the chunks into `job.own`."""
    from litdata import optimize

    optimize(
        fn=partial(element, job), inputs=list(range(len(source(job)))), output_dir=job.own, chunk_bytes=CHUNK,
        num_workers=1, verbose=False,
    )  # fmt: skip


def element(job: child.Job, i: int) -> dict[str, Any]:
    """What is stored for sample `i`."""
    data = _source(job)
    if job.kind == "photographs":
        return {"jpeg": Path(data.files(".jpg")[i]).read_bytes()}
    return {name: np.asarray(value) if np.ndim(value) else int(value) for name, value in data[i].items()}


_made: dict[str, Any] = {}


def _source(job: child.Job) -> Any:
    if job.set not in _made:
        _made[job.set] = source(job)
    return _made[job.set]


if __name__ == "__main__":
    from benchmarks.peers import litdata_chunks as here  # by its name, so that workers can find the functions

    child.main(
        child.Loader(here.batches, lambda job: ("torch", "litdata", *needs(job)), convert=here.convert)
    )
