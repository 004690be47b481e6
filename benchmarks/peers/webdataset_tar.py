"""WebDataset: tar shards read from front to back, a shuffle buffer of two batches, `workers` processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import needs, picture, source

SHARD_BYTES = 128 << 20


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Batches made in the workers."""
    import webdataset as wds

    workers = int(job.option("workers", 0))
    shards = sorted(str(path) for path in Path(job.own).glob("*.tar"))
    # A buffer that starts to hand out at once would hold less than it says; two batches are its best here.
    data = (
        wds.WebDataset(shards, shardshuffle=len(shards), seed=job.seed, empty_check=False)
        .shuffle(2 * job.batch, initial=job.batch)
        .map(partial(decode, job.kind, bool(job.option("scaled", False))))
        .batched(job.batch, collation_fn=partial(join, job.kind == "ragged"))
    )
    loader = wds.WebLoader(
        data, batch_size=None, num_workers=workers,
        prefetch_factor=2 if workers else None, persistent_workers=workers > 0,
    )  # fmt: skip
    for _epoch in job.epochs():
        yield from loader


def decode(kind: str, scaled: bool, sample: dict[str, Any]) -> dict[str, Any]:
    """Arrays of one sample."""
    if kind == "photographs":
        return {"x": picture(sample["jpg"], scaled)}
    return {
        "x": np.frombuffer(sample["bin"], np.float32).reshape(-1, 64),
        "y": np.int64(int.from_bytes(sample["cls"], "little")),
    }


def join(ragged: bool, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of tensors, because those cross to the consumer in shared memory."""
    import torch

    names = [name for name in samples[0] if not name.startswith("__")]
    columns = {name: [torch.as_tensor(sample[name]) for sample in samples] for name in names}
    return columns if ragged else {name: torch.stack(column) for name, column in columns.items()}


def convert(job: child.Job) -> None:
    """Write the shards into `job.own`."""
    import webdataset as wds

    data = source(job)
    assert job.kind in ("ragged", "photographs"), job.kind
    with wds.ShardWriter(f"{job.own}/%04d.tar", maxsize=SHARD_BYTES, verbose=0) as shards:
        for i in range(len(data)):
            if job.kind == "photographs":
                fields = {"jpg": Path(data.files(".jpg")[i]).read_bytes()}
            else:
                sample = data[i]
                fields = {
                    "bin": np.asarray(sample["x"]).tobytes(),
                    "cls": int(sample["y"]).to_bytes(8, "little"),
                }
            shards.write({"__key__": f"{i:07d}"} | fields)


if __name__ == "__main__":
    child.main(child.Loader(batches, lambda job: ("torch", "webdataset", *needs(job)), convert=convert))
