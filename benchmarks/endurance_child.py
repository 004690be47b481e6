"""Caudal as the child of `endurance`: streams a set, and checks each sample while it goes.

Run with a job it delivers batches until its parent's time is up, by the protocol of the loader benchmarks.
Run with `account RAM LIMIT FOLDER…` it goes through one epoch of each folder of pictures and prints what came
of it. What memory it takes is measured from outside.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import child
from benchmarks.peers.prints import photograph_number

ENDLESS_EPOCHS = 10**6
PICTURE_PX = 224
BATCH = 32


class Roll:
    """Calls the samples of a sparse set: each holds its number at both ends, and comes once an epoch."""

    def __init__(self, samples: int) -> None:
        self._epoch = np.full(samples, -1, np.int64)  # in which each one came last

    def check(self, batch: Any) -> None:
        """Look at each sample of a batch.

        Raises:
            ValueError: one is not what it should be, or came twice, or was left out before.
        """
        x, samples = batch.numpy("x"), batch.samples
        if not ((x[:, 0] == samples) & (x[:, -1] == samples)).all():
            raise ValueError(f"samples {samples.tolist()} hold {x[:, [0, -1]].tolist()}")
        if not (self._epoch[samples] == batch.epoch - 1).all():
            came = self._epoch[samples].tolist()
            raise ValueError(f"in epoch {batch.epoch} came {samples.tolist()}, which came last in {came}")
        self._epoch[samples] = batch.epoch


def batches(job: child.Job) -> Iterator[Any]:
    """Batches of a sparse set without end, each of them checked."""
    import caudal

    _keep_index_beside(Path(job.set))
    with caudal.stream(
        job.set, batch_size=job.batch, seed=job.seed, epochs=ENDLESS_EPOCHS, samples="rows", **job.options
    ) as stream:
        roll = Roll(stream.plan.samples)
        for batch in stream:
            roll.check(batch)
            yield batch


@dataclass(frozen=True)
class Account:
    """One epoch: the `samples` as the stream counts them, and the `numbers` drawn in the pictures that came.

    `broken` are the name of a file and the samples from … to that it has. `seconds` are those of the loop,
    of which it waited `stall_seconds`, and `longest_wait_seconds` for one batch; `cpu_seconds` are those of
    all threads meanwhile.
    """

    samples: list[int]
    numbers: list[int]
    broken: list[tuple[str, int, int]]
    seconds: float
    stall_seconds: float
    longest_wait_seconds: float
    cpu_seconds: float

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Account:
        """The account that was printed."""
        return cls(**facts | {"broken": [(name, first, last) for name, first, last in facts["broken"]]})

    @property
    def rate(self) -> float:
        """Samples a second."""
        return len(self.samples) / self.seconds


def account(folder: Path, ram: str, broken_limit: float) -> Account:
    """Go through the pictures of `folder` once."""
    import caudal

    _keep_index_beside(folder)
    strips = list[npt.NDArray[np.uint8]]()  # their numbers are read when the clock has stopped
    samples, waits = list[int](), list[float]()
    size = (PICTURE_PX, PICTURE_PX)
    with caudal.stream(folder, BATCH, ram=ram, seed=1, resize=size, broken_limit=broken_limit) as stream:
        began, used = time.perf_counter(), time.process_time()
        for batch in stream:
            strips.extend(batch.numpy("image")[:, -8:-7].copy())
            samples += batch.samples.tolist()
            waits.append(batch.stall_seconds)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
        broken = [(Path(one.file).name, one.first, one.last) for one in stream.broken]
    numbers = [photograph_number(strip) for strip in strips]
    return Account(samples, numbers, broken, seconds, sum(waits), max(waits), cpu_seconds)


def _keep_index_beside(folder: Path) -> None:
    """A set that is gone soon leaves nothing in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")


def main() -> None:
    """Do what the arguments say."""
    if sys.argv[1] == "account":
        ram, limit, *folders = sys.argv[2:]
        found = [asdict(account(Path(folder), ram, float(limit))) for folder in folders]
        print(json.dumps({"accounts": found}))
        return
    child.main(
        child.Loader(
            batches, lambda _job: ("torch", "caudal.runs.verbs.stream"), count=lambda batch: int(batch.size)
        )
    )


if __name__ == "__main__":
    main()
