"""What every loader under test does alike: take a job, warm up, drain, say how it went.

It knows no loader, and it measures no memory and no processor time: the parent does, from outside. At each
mark the child writes one line of JSON and waits for a line from its parent, so that both clocks agree.
Only the standard library and numpy are imported here, because each peer has its own environment.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers import consumers, prints

Batch = Any


@dataclass(frozen=True)
class Job:
    """What a loader is asked to do.

    `set` is the folder of the work, `samples` how many are timed after the first `warm`, in batches of
    `batch`. `consumer` is none, read or train. After `seconds_most` the run is cut short. With `check` one
    epoch is drained to its end and fingerprinted, and nothing is timed. `own` is the folder of the set in
    the loader's own format, and `options` are its settings.
    """

    set: str
    samples: int
    batch: int
    seed: int = 0
    consumer: str = "none"
    warm: int = 0
    seconds_most: float = math.inf
    check: bool = False
    own: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What the set says of itself (`set.json`)."""
        found: dict[str, Any] = json.loads((Path(self.set) / "set.json").read_text())
        return found

    @property
    def kind(self) -> str:
        """What a sample of the set is."""
        return str(self.facts["kind"])

    def epochs(self) -> Iterable[int]:
        """The epochs to go through: one if the loader is being checked, else as many as are drained."""
        return range(1) if self.check else itertools.count()

    def option(self, name: str, default: Any) -> Any:
        """A setting of the loader."""
        return self.options.get(name, default)


@dataclass(frozen=True)
class Loader:
    """A loader under test.

    `batches` yields batches in the loader's natural form. `imports` are loaded before anything is measured.
    `columns` gives all arrays of a batch, each with one entry a sample; `convert` writes the set in the
    loader's own format.
    """

    batches: Callable[[Job], Iterator[Batch]]
    imports: Callable[[Job], Iterable[str]] = lambda _job: ()
    columns: Callable[[Batch], dict[str, Any]] = dict
    count: Callable[[Batch], int] = lambda batch: len(next(iter(batch.values())))
    arrays: Callable[[Batch], list[Any]] | None = None
    convert: Callable[[Job], None] | None = None


def mark(name: str, **facts: Any) -> None:
    """Tell the parent, and wait until it has looked."""
    print(json.dumps({"mark": name} | facts), flush=True)
    sys.stdin.readline()


def main(loader: Loader) -> None:
    """Run the job in the last argument; `convert` before it writes the loader's own format instead."""
    job = Job(**json.loads(sys.argv[-1]))
    for name in (*loader.imports(job), *consumers.imports(job.consumer)):
        import_module(name)
    if sys.argv[1] == "convert":
        assert loader.convert, "this loader has no format of its own"
        loader.convert(job)
    elif job.check:
        _check(loader, job)
    else:
        _drain(loader, job)


def _drain(loader: Loader, job: Job) -> None:
    arrays = loader.arrays or partial(flat, loader.columns)
    consume = consumers.make(job.consumer, loader.columns, arrays)
    mark("ready")
    began = time.perf_counter()
    batches = loader.batches(job)
    batch = next(batches)
    first_seconds = time.perf_counter() - began
    warmed = loader.count(batch)
    consume(batch)
    while warmed < job.warm:
        batch = next(batches)
        warmed += loader.count(batch)
        consume(batch)
    mark("warm")
    done, waited, began = 0, 0.0, time.perf_counter()
    while done < job.samples and time.perf_counter() - began < job.seconds_most:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        consume(batch)
        done += loader.count(batch)
    seconds = time.perf_counter() - began
    mark("done", samples=done, seconds=seconds, first_batch_seconds=first_seconds, stall=waited / seconds)


def _check(loader: Loader, job: Job) -> None:
    kind = job.kind
    mark("ready")
    began, tally = time.perf_counter(), prints.Tally(kind)
    mark("warm")
    for batch in loader.batches(job):
        tally.add(loader.columns(batch))
    mark("done", samples=tally.samples, seconds=time.perf_counter() - began, checksum=tally.checksum,
         mean=tally.mean)  # fmt: skip


def flat(columns: Callable[[Batch], dict[str, Any]], batch: Batch) -> list[Any]:
    """Every array of a batch; a ragged column counts as one array a sample."""
    found = []
    for column in columns(batch).values():
        found += column if isinstance(column, list) else [column]
    return found
