"""The contract between a run and its data: opened for a plan, rehearsed by a probe, then trained on.

The engine (`verbs/plan`, `probe`, `verbs/train`) knows this and no family of data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from caudal.core.events import Events
from caudal.core.units import Bytes
from caudal.memory.cost import Forward
from caudal.memory.meters import PeakMeter
from caudal.runs.facts import Facts
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.tasks.base import Metrics, Task

if TYPE_CHECKING:  # a plan is made without torch
    import torch
    from torch import nn

    from caudal.models.weights import ModelCard
    from caudal.training.precision import Precision
    from caudal.training.step import Parts, Prepare, StepBatch

Tick = Callable[[int, int], None]


class Work(Protocol):
    """The data of a run, opened by their headers alone."""

    spec: RunSpec
    """The spec that it was opened with; what was left open there and the data decide is filled in."""
    facts: Facts
    warnings: tuple[str, ...]

    @classmethod
    def open(cls, spec: RunSpec, tick: Tick) -> Self:
        """Index the data of `spec`, and split them.

        Raises:
            DataError: the files do not belong together, or cannot be read.
            UsageError: a setting that these data do not allow.
        """
        ...

    @classmethod
    def rehearse(cls, spec: RunSpec, told: dict[str, Any]) -> Rehearsal:
        """What a probe measures, in another process, from what `tell` said."""
        ...

    def tell(self) -> dict[str, Any]:
        """What a rehearsal has to know, as plain values."""
        ...

    @property
    def most_blocks(self) -> int:
        """How many pieces of the data may be open at once, at the most."""
        ...

    @property
    def most_ahead(self) -> int:
        """How many batches are better read ahead."""
        ...

    def arena_bytes(self, open_blocks: int, ahead: int) -> Bytes:
        """What the stream takes with so many pieces open and so many batches read ahead."""
        ...

    @property
    def steps(self) -> int:
        """How many steps there will be."""
        ...

    @property
    def index_bytes(self) -> int:
        """What the index takes."""
        ...

    @property
    def members(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers to train on and held out, where they belong into the plan."""
        ...

    def start(self, plan: TrainPlan, folder: RunFolder, again: bool, events: Events) -> Course:
        """Look at the data, or read what was found when the run began (`again`).

        Raises:
            BadValues: there is nothing to learn from.
            UsageError: the data are not those that the run began with.
        """
        ...


class Course(Protocol):
    """The data of a run, looked at: what they are learned with, and how that is scored."""

    warnings: tuple[str, ...]
    parts: Parts | None
    """How a batch is cut into micro-batches; `None`: into parts of as many samples."""
    takes_ranks: bool
    """Whether its batches are dealt out to several processes."""

    @property
    def task(self) -> Task:
        """What is learned."""
        ...

    def make_model(self) -> nn.Module:
        """An untrained model on the device; a pure function of the seed."""
        ...

    def prepare(self) -> Prepare:
        """From a part of a batch to the model's input and target, on the device."""
        ...

    def fit(self, model: nn.Module) -> bool:
        """Learn in one pass, if that is how this model learns; else nothing is done, and steps follow."""
        ...

    def batches(self, start: int) -> AbstractContextManager[Iterable[StepBatch]]:
        """The batches of the steps from `start` on."""
        ...

    def validate(self, model: nn.Module, precision: Precision) -> Metrics:
        """Score on a part of the held-out data, small enough to be done while training goes on."""
        ...

    def score(self, model: nn.Module, precision: Precision, folder: Path) -> tuple[Metrics, Sequence[str]]:
        """Score on all held-out data, and what must be said beside the figures. `folder` is for results."""
        ...

    def card(self, model: nn.Module, metrics: Metrics) -> ModelCard:
        """All that must be known to use the model."""
        ...


class RehearsedBatch(Protocol):
    """A batch of its own memory: a run's batches lie in the stream's, which is counted there."""

    @property
    def size(self) -> int:
        """Samples."""
        ...

    @property
    def nbytes(self) -> int:
        """What its arrays take."""
        ...


class Rehearsal(Protocol):
    """A little of a run's work, for a probe."""

    inputs: int
    outputs: int

    @property
    def config(self) -> dict[str, Any]:
        """Keys of the model's configuration that the data decide."""
        ...

    def load(self) -> None:
        """Import what a run imports."""
        ...

    def make_task(self) -> Task:
        """The task of the run, as far as it is known from headers."""
        ...

    def prepare(self, device: str) -> Prepare:
        """As `Course.prepare`."""
        ...

    @property
    def parts(self) -> Parts | None:
        """As `Course.parts`."""
        ...

    def on_meta(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """One sample's input and target on torch's meta device; `None` where that cannot be said."""
        ...

    def decoding(self, meter: PeakMeter, threads: int) -> Bytes:
        """The peak of reading with so many threads, above what is held now."""
        ...

    def forwards(self, model: nn.Module, task: Task, precision: Precision, room: Bytes) -> Sequence[Forward]:
        """What inference of growing inputs takes, as far as one may take `room` bytes."""
        ...

    def scoring(self, model: nn.Module, task: Task, precision: Precision, meter: PeakMeter) -> Bytes:
        """The peak of scoring, above what is held now."""
        ...

    def guess(self, forwards: Sequence[Forward], size: int) -> float:
        """Roughly what a step of `size` samples takes, from what inference took."""
        ...

    @property
    def steps(self) -> int:
        """How many steps say what a step takes; at least two."""
        ...

    def batch(self, size: int, number: int) -> RehearsedBatch:
        """A batch of the `size` samples that take most; of another `number`, one that differs as they do."""
        ...
