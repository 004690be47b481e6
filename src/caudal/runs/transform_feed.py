"""A feed whose samples go through a function of the user's: divides the budget, and says where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from caudal.core.errors import DoesNotFit, UsageError
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.batches import Batch
from caudal.data.broken import Broken
from caudal.data.passes import Pass
from caudal.data.transform.function import Function, Output, Transform, learn
from caudal.data.transform.probe import belongs_in_process
from caudal.data.transform.process import Worker
from caudal.data.transform.stage import RING_BATCHES, TransformStage
from caudal.memory.arena import Arena
from caudal.runs.feed import Feed, StreamPlan
from caudal.runs.machine import processors

Where = Literal["auto", "threads", "process"]

# Set aside for the process whether there is one or not: the order must not depend on what a probe found.
_PROCESS_BYTES = Bytes(64 * MIB)
_PROCESS_SHARE = 3


class TransformFeed:
    """`feed` with its samples transformed."""

    def __init__(
        self, feed: Feed, function: Function, where: Where, ram: Bytes, batch: int, threads: int
    ) -> None:
        """Learn from the first batch what comes out, and where the function runs best.

        Raises:
            UsageError: the function gives no arrays of one shape, or cannot run where it has to.
            DoesNotFit: nothing is left for reading.
        """
        self._feed, self._threads = feed, threads
        self._transform = Transform(function, feed.seed)
        self._notes: tuple[str, ...] = ()
        running = feed.run(0, 0, 1)
        try:
            self._outputs, slow = self._learn(next(iter(running)))
        finally:
            running.close()
        self._ring_bytes = RING_BATCHES * self._largest(batch)
        aside = self._divide(ram)
        self._worker = self._choose(where, slow, aside)
        self._in_process = self._worker is not None
        if not self._in_process:  # the same order, and more read ahead
            open_blocks = feed.open_blocks
            feed.resize(Bytes(ram - self._ring_bytes))
            feed.fit(open_blocks)

    def _divide(self, ram: Bytes) -> Bytes:
        """Leave the feed what is left; how much is set aside for a process."""
        aside = Bytes(min(_PROCESS_BYTES, ram // _PROCESS_SHARE))
        try:
            self._feed.resize(Bytes(ram - self._ring_bytes - aside))
        except DoesNotFit as error:
            raise DoesNotFit(
                error.message,
                _("Of {ram}, transformed batches take {ring} and a process to make them {aside}.").format(
                    ram=ram, ring=Bytes(self._ring_bytes), aside=aside
                ),
                **error.facts,
            ) from None
        return aside

    def _learn(self, batch: Batch) -> tuple[list[Output], bool]:
        fields = {name: batch.numpy(name) for name in batch}
        ragged = [name for name, found in fields.items() if not isinstance(found, np.ndarray)]
        by_length = np.argsort(fields[ragged[0]].lengths) if ragged else np.arange(batch.size)
        chosen = sorted({int(by_length[0]), int(by_length[-1]), int(by_length[batch.size // 2])})

        def sample(k: int) -> Mapping[str, Any]:
            return {name: np.array(found[k]) for name, found in fields.items()}

        outputs = learn(self._transform, ragged, [(int(batch.samples[k]), sample(k)) for k in chosen])
        k = chosen[-1]
        one, number = sample(k), int(batch.samples[k])
        return outputs, belongs_in_process(lambda: self._transform(one, number, 0), processors())

    def _largest(self, batch: int) -> int:
        """Bytes of the largest batch that comes out."""
        total = 0
        for one in self._outputs:
            rows = self._feed.most_rows(one.follows) if one.follows else batch
            total += Arena.size_of(rows * one.field.row_bytes)
        return total

    def _choose(self, where: Where, slow: bool, most: Bytes) -> Worker | None:
        if where == "threads" or (where == "auto" and not slow):
            return None
        try:
            worker = Worker(self._transform)
            if worker.charged <= most:
                return worker
            held = worker.charged
            worker.close()
            raise UsageError(
                _("A process for the transform takes {held}, and {most} were set aside for it.").format(
                    held=held, most=most
                ),
                _("Define the function in a module that imports less, or run it in threads."),
            )
        except UsageError as error:
            if where == "process":
                raise
            self._notes = (_("It blocks other threads there: {why}").format(why=error.message),)
            return None

    @property
    def seed(self) -> int:
        """See `Feed.seed`."""
        return self._feed.seed

    @property
    def open_blocks(self) -> int:
        """See `Feed.open_blocks`."""
        return self._feed.open_blocks

    @property
    def samples_per_epoch(self) -> int:
        """See `Feed.samples_per_epoch`."""
        return self._feed.samples_per_epoch

    @property
    def digest(self) -> str:
        """See `Feed.digest`."""
        return self._feed.digest

    @property
    def broken(self) -> list[Broken]:
        """See `Feed.broken`."""
        return self._feed.broken

    def plan(self) -> StreamPlan:
        """See `Feed.plan`."""
        plan = self._feed.plan()
        where = _("in a process of its own") if self._in_process else _("in threads")
        return replace(
            plan,
            fields=tuple(f"{o.field.name} {o.field.dtype}{list(o.field.shape)}" for o in self._outputs),
            arena_bytes=Bytes(plan.arena_bytes + self._ring_bytes),
            notes=(*plan.notes, _("The transform runs {where}.").format(where=where), *self._notes),
        )

    def resize(self, ram: Bytes) -> None:
        """See `Feed.resize`."""
        self._divide(ram)

    def most_rows(self, name: str) -> int:
        """See `Feed.most_rows`."""
        follows = next(one.follows for one in self._outputs if one.field.name == name)
        return self._feed.most_rows(follows)

    def fit(self, open_blocks: int) -> None:
        """See `Feed.fit`."""
        self._feed.fit(open_blocks)

    def batches(self, epochs: int) -> int:
        """See `Feed.batches`."""
        return self._feed.batches(epochs)

    def run(self, epoch: int, position: int, epochs: int, shared: bool = False) -> Pass:
        """See `Feed.run`."""
        worker, self._worker = self._worker, None
        if self._in_process and worker is None:
            worker = Worker(self._transform)
        source = self._feed.run(epoch, position, epochs, shared or worker is not None)
        return TransformStage(source, self._transform, self._outputs, self._ring_bytes, self._threads, worker)
