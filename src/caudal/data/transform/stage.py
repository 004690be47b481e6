"""Transformed batches, in the order in which they come in, made ahead into memory of their own."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from caudal.data.batches import Batch
from caudal.data.passes import Pass
from caudal.data.sample_files.base import Array, Field, Ints
from caudal.data.sample_stream import Meter
from caudal.data.transform.function import Output, Transform, apply
from caudal.data.transform.process import Worker
from caudal.memory.arena import ALIGNMENT_BYTES, Arena
from caudal.memory.ring import Ring, RingLease

RING_BATCHES = 3  # in use, ready, and being made


@dataclass
class _Made:
    batch: Batch
    lease: RingLease
    epoch: int
    position: int


class TransformStage:
    """An iterator of transformed batches with the fields `outputs`. `close` it.

    The ring has `ring_bytes`. With a `worker` samples are transformed there, else by `threads` threads.
    """

    def __init__(
        self,
        source: Pass,
        transform: Transform,
        outputs: Sequence[Output],
        ring_bytes: int,
        threads: int,
        worker: Worker | None,
    ) -> None:
        self.epoch, self.position = source.epoch, source.position
        self._source, self._transform, self._outputs, self._worker = source, transform, outputs, worker
        self.arena = Arena(ring_bytes + ALIGNMENT_BYTES, shared=worker is not None)
        self._ring = Ring(self.arena, ring_bytes)
        self._pool = ThreadPoolExecutor(threads, "caudal-transform") if worker is None else None
        self._threads = threads
        if worker is not None:
            worker.attach(source.arena, self.arena)
        self._made = deque[_Made]()
        self._in_use: _Made | None = None
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = self._ended = False
        self._own = Meter()
        self._thread = threading.Thread(target=self._work, name="caudal-transform", daemon=True)
        self._thread.start()

    @property
    def meter(self) -> Meter:
        """Of the source, with this consumer's samples and waits."""
        own = {name: getattr(self._own, name) for name in ("stall_seconds", "samples", "batches")}
        return dataclasses.replace(self._source.meter, transform_seconds=self._own.transform_seconds, **own)

    def _work(self) -> None:
        try:
            for batch in self._source:
                made = self._make(batch)
                if made is None:
                    return
                with self._changed:
                    self._made.append(made)
                    self._changed.notify_all()
        except BaseException as error:  # handed to the consumer, who raises it
            with self._changed:
                self._error = None if self._closed else error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _make(self, batch: Batch) -> _Made | None:
        """The batch transformed; `None` if the stage was closed while it waited for room."""
        ends = {one.field.name: batch.numpy(one.follows).ends.copy() for one in self._outputs if one.follows}
        arrays: dict[str, Array] = {}
        shapes = [self._shape(one.field, batch, ends) for one in self._outputs]
        sizes = [math.prod(shape) * one.field.dtype.itemsize for one, shape in self._with(shapes)]
        with self._changed:
            while (lease := self._ring.lease(sum(map(Arena.size_of, sizes)))) is None:
                if self._closed:
                    return None
                self._changed.wait()
        at = 0
        for (one, shape), nbytes in zip(self._with(shapes), sizes, strict=True):
            arrays[one.field.name] = lease.array(shape, one.field.dtype, at)
            at += Arena.size_of(nbytes)
        made = Batch(arrays, ends, batch.samples.copy(), batch.epoch, batch.ends_step)
        began = time.perf_counter()
        if batch.size:
            self._run(batch, made)
        self._own.transform_seconds += time.perf_counter() - began
        return _Made(made, lease, self._source.epoch, self._source.position)

    def _shape(self, one: Field, batch: Batch, ends: dict[str, Ints]) -> tuple[int, ...]:
        rows = batch.size
        if one.ragged:
            rows = int(ends[one.name][-1]) if batch.size else 0
        return (rows, *one.row_shape)

    def _with(self, shapes: list[tuple[int, ...]]) -> Iterator[tuple[Output, tuple[int, ...]]]:
        return zip(self._outputs, shapes, strict=True)

    def _run(self, batch: Batch, made: Batch) -> None:
        inputs = {name: batch.numpy(name) for name in batch}
        outputs = {name: made.numpy(name) for name in made}
        if self._worker is not None:
            self._worker.run(
                {name: self._place(0, found) for name, found in inputs.items()},
                {name: self._place(1, found) for name, found in outputs.items()},
                batch.samples,
                batch.epoch,
            )
            return
        assert self._pool
        cuts = np.linspace(0, batch.size, min(self._threads, batch.size) + 1).astype(int).tolist()
        jobs = [
            self._pool.submit(apply, self._transform, inputs, outputs, batch.samples, batch.epoch, i, j)
            for i, j in pairwise(cuts)
        ]
        for job in jobs:
            job.result()

    def _place(self, arena: int, found: Any) -> Any:
        assert self._worker
        if isinstance(found, np.ndarray):
            return self._worker.place(arena, found)
        return self._worker.place(arena, found.values, found.ends)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        began = time.perf_counter()
        with self._changed:
            if self._in_use is not None:
                self._in_use.batch.release()
                self._in_use = None
                self._ring.give_back()
                self._changed.notify_all()
            while not self._made:
                if self._error:
                    raise self._error
                if self._ended or self._closed:
                    raise StopIteration
                self._changed.wait()
            made = self._in_use = self._made.popleft()
        made.batch.stall_seconds = time.perf_counter() - began
        self.epoch, self.position = made.epoch, made.position
        self._own.stall_seconds += made.batch.stall_seconds
        self._own.samples += made.batch.size
        self._own.batches += 1
        return made.batch

    def close(self) -> None:
        """Stop the threads and the process, and give everything back; safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._worker:
            self._worker.stop()
        self._source.close()
        self._thread.join()
        if self._pool:
            self._pool.shutdown()
        if self._worker:
            self._worker.close()
        self.arena.close()
