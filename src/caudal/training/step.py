"""One optimizer step: the batch in micro-batches, their gradients added up, then the update.

A step that runs out of memory is taken again in smaller parts, with the same gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import nn

from caudal.core.errors import OutOfMemory
from caudal.core.messages import _
from caudal.memory import allocator
from caudal.tasks.base import Task
from caudal.training.adamw import AdamW
from caudal.training.distributed import ALONE, Ranks
from caudal.training.finite import Finite
from caudal.training.precision import Precision
from caudal.training.retry import Retry, naming_want_of_memory, ran_out


class StepBatch(Protocol):
    """What the loop knows of a batch: how many samples it has, and how long it was waited for."""

    @property
    def size(self) -> int:
        """Samples."""
        ...

    @property
    def stall_seconds(self) -> float:
        """How long it was waited for."""
        ...


Prepare = Callable[[Any, slice], tuple[Any, Any]]
"""A part of a batch as the model and the loss want it, on the device."""
Parts = Callable[[Any, int], Iterable[slice]]
"""How a batch is cut, given the micro-batch: samples that go through the model together."""
Shrunk = Callable[[int, int, int], None]
"""Hears that a step is taken again: the micro-batch that failed, the one from now on, what was held then."""


def equal_parts(batch: StepBatch, micro_batch: int) -> Iterator[slice]:
    """Parts of `micro_batch` samples, and what is left."""
    for start in range(0, batch.size, micro_batch):
        yield slice(start, min(start + micro_batch, batch.size))


FIRST_PARTS = 2
"""Of a size: by then kernels keep what they will keep."""


@dataclass
class Stepper:
    """Holds what a step needs. The gradient is that of the mean loss over the whole batch.

    Of several processes (`ranks`) each takes its share, as large as the others', of the batch; all take the
    same step, and running statistics are the mean of theirs. `smaller` are the micro-batches that may be
    fallen back on: those that give the same gradient. `shrunk` hears of it, and `held` says what is held
    before anything is given back. `micro_batch` may be changed between steps.
    """

    model: nn.Module
    task: Task
    optimizer: AdamW
    scaler: torch.amp.GradScaler
    precision: Precision
    prepare: Prepare
    micro_batch: int
    clip: float
    smaller: Sequence[int] = ()
    shrunk: Shrunk = lambda _before, _after, _held: None
    held: Callable[[], int] = lambda: 0
    parts: Parts = equal_parts
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        self._retry = Retry(self.model)
        self._finite = Finite(self.scaler.is_enabled())
        self._taken = (0, 0)  # a micro-batch, and how many parts of it in a row

    def run(self, batch: StepBatch, rate: float, done: int = 0) -> float:
        """Take one step at `rate`, after `done` others; returns the batch's mean loss before it.

        Raises:
            Diverged: the loss or the gradient is no finite number. The weights and the optimizer's state are
                those before the step.
            OutOfMemory: not even the smallest micro-batch finds room, in any of the processes; or the update
                found none, which is then half done (the fact `half_done`).
        """
        self.model.train()
        size, parts = self._taken if self._taken[0] == self.micro_batch else (self.micro_batch, 0)
        with allocator.apart(parts < FIRST_PARTS):
            total = self._gradient(batch)
            self._finite.check_loss(total, rate, done + 1)
            with naming_want_of_memory(_("updating the weights"), half_done=True):
                norm = self._update(rate)
        self._finite.check_gradient(norm, rate, done + 1)
        self._taken = size, parts + -(-batch.size // size)
        return total

    def _update(self, rate: float) -> float:
        """Take the step if the gradient is finite; its norm."""
        self.ranks.add_up(w.grad for w in self.model.parameters() if w.grad is not None)
        self.ranks.average(b for b in self.model.buffers() if b.is_floating_point())
        self.optimizer.set_rate(rate)
        optimizer = cast(torch.optim.Optimizer, self.optimizer)  # as far as a scaler looks, it is one
        self.scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.clip))
        if self.scaler.is_enabled() or math.isfinite(norm):
            self.scaler.step(optimizer)  # one that is enabled looks for itself, and leaves it out
        self.scaler.update()
        self.optimizer.zero_grad()
        return norm

    def next_smaller(self) -> int | None:
        """The largest micro-batch below the present one that may be fallen back on."""
        return max((size for size in self.smaller if size < self.micro_batch), default=None)

    def _gradient(self, batch: StepBatch) -> float:
        """Leave the gradient in the weights, in as many parts as memory asks for; give the mean loss.

        Of several processes each holds its share of the gradient. Where one runs out of memory all take the
        step again, in parts of the same size: one that went on alone would wait for the others for ever.
        """
        self._retry.keep()
        while True:
            mine = self._attempt(batch)
            total, failures = self.ranks.sums((mine or 0.0, float(mine is None)))
            if not failures:
                return total
            held = self.held()
            # Outside the handler: while an error is handled, its traceback holds on to every tensor.
            self.optimizer.zero_grad()
            self._retry.put_back()
            self._fall_back(mine is None, held)

    def _fall_back(self, here: bool, held: int) -> None:
        """Take smaller parts from now on, as all processes agree; `here`: it was this one that ran out.

        Raises:
            OutOfMemory: one that ran out cannot take fewer.
        """
        before = self.micro_batch
        failed = int(self.ranks.most(before if here else 0))
        after = int(-self.ranks.most(-((self.next_smaller() or 0) if here else before)))
        if not after:
            raise OutOfMemory(
                _("A step ran out of memory with {size} samples at once, and it cannot take fewer.").format(
                    size=failed
                ),
                _("Free memory that others hold, or set a smaller patch or model in the spec."),
                micro_batch=failed,
            )
        if after < before:
            self.micro_batch = after
            self.shrunk(before, after, held)

    def _attempt(self, batch: StepBatch) -> float | None:
        """This process's part of the mean loss, its gradient in the weights; `None` if memory ran out."""
        try:
            return self._parts(batch)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            return None

    def _parts(self, batch: StepBatch) -> float:
        size, total = batch.size * self.ranks.count, 0.0
        # Asked for once: another thread may change the micro-batch, from the next step on.
        for part in self.parts(batch, self.micro_batch):
            x, y = self.prepare(batch, part)
            with self.precision.autocast():
                scores = self.model(x)
            # A sum divided by the batch, not a mean of means: parts of any size weigh what they should.
            loss = self.task.loss(scores, y).sum() / size
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total
