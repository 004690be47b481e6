"""The contract of a kind of sample: how files of it are opened, and what a model is given of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field

from caudal.core.config import Frozen
from caudal.data.batches import Batch
from caudal.data.glance import Glance
from caudal.data.sample_files.base import Ints
from caudal.data.sample_set import SampleSet
from caudal.runs.spec import RunSpec
from caudal.runs.work.sought import Sought
from caudal.tasks.base import Metrics, Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caudal.training.step import Parts


class Inputs(Frozen):
    """What of a sample goes into the model: `fields`, `count` numbers (bands, features) each place.

    `config` are keys of the model's configuration that the data decide. `steps` is how many places a sample
    has where all have as many. `kinds` are, by field, the values that a column of it is told apart by
    (`encoding`), where any is; `count` then are the numbers that it becomes, and `stored` those in the files.
    """

    fields: tuple[str, ...]
    count: int
    shape: str
    config: dict[str, Any] = Field(default_factory=dict)
    steps: int = 0
    notes: tuple[str, ...] = ()
    kinds: dict[str, tuple[tuple[float, ...], ...]] = Field(default_factory=dict)
    stored: tuple[int, ...] = ()

    def fits(self, other: Inputs) -> bool:
        """Whether a model that was made for one takes the other, of whatever lengths."""
        columns = (self.stored or (self.count,), other.stored or (other.count,))
        return self.fields == other.fields and columns[0] == columns[1]


class Statistics(Frozen):
    """What makes numbers of files fit for a model; `values` are the kind's own record as plain values."""

    values: dict[str, Any]
    warnings: tuple[str, ...] = ()


Target = Callable[[Batch, slice], "torch.Tensor"]


class Scorer(Protocol):
    """Gathers predictions of samples."""

    def add(self, probabilities: Any, truth: Any) -> None:
        """Take predictions and their truth."""
        ...

    def result(self) -> Metrics:
        """The figures over all that was taken."""
        ...

    def warnings(self) -> list[str]:
        """What must be said beside the figures."""
        ...

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Tables for the report, by name."""
        ...


@runtime_checkable
class Watchful(Protocol):
    """What prepares batches and has something to say of them when all went through."""

    def warnings(self) -> list[str]:
        """What must be said beside what was made of them."""
        ...


class SampleTask(Task, Protocol):
    """A task over samples."""

    def scorer(self) -> Any:
        """A new, empty `Scorer`."""
        ...


class Kind(Protocol):
    """A kind of sample. It holds nothing."""

    def open_set(self, spec: RunSpec, tick: Callable[[int, int], None]) -> SampleSet:
        """The samples that a spec names."""
        ...

    def inputs(self, samples: SampleSet, besides: frozenset[str]) -> Inputs:
        """What of them is learned from: not the fields `besides`.

        Raises:
            DataError: there is nothing of this kind in them.
        """
        ...

    def statistics(self, samples: SampleSet, inputs: Inputs, threads: int, seed: int) -> Statistics:
        """What the samples to train on say of their numbers."""
        ...

    def statistics_of(self, model: nn.Module) -> Statistics | None:
        """What a model that was learned elsewhere expects; `None`: as the data say."""
        ...

    per_row_key: ClassVar[str]
    """The key of a model's configuration with which it says something of every row of a sample."""
    takes_groups: ClassVar[bool]
    """Whether a scorer also takes what a table says of each sample."""
    fewest_to_choose: ClassVar[int]
    """Of fewer samples than these `choose` sets nothing."""

    def make_task(
        self, spec: RunSpec, sought: Sought, counts: Ints | None, chosen: Mapping[str, Any]
    ) -> SampleTask:
        """The task; `counts` are how many samples to train on each class has, `chosen` what `choose` gave."""
        ...

    def choose(self, scorer: Any) -> dict[str, Any]:
        """What is set once a model is trained, from a scorer of data that it was not trained on."""
        ...

    def prepare(
        self,
        spec: RunSpec,
        inputs: Inputs,
        sought: Sought,
        statistics: Statistics | None,
        device: str,
        training: bool,
        samples: SampleSet,
    ) -> Callable[[Batch, slice], tuple[Any, Any]]:
        """From a part of a batch of the set `samples` to input and target, augmented in `training`.

        Without `statistics` values are taken as they are.
        """
        ...

    def parts(self, samples: SampleSet, inputs: Inputs) -> Parts | None:
        """How batches are cut so that every part takes about as much as its number of largest samples."""
        ...

    def places(self, samples: SampleSet, inputs: Inputs, numbers: Ints) -> Ints:
        """How many rows each of the samples `numbers` has, of which a model may say something."""
        ...

    def largest(self, samples: SampleSet, inputs: Inputs, count: int) -> Ints:
        """Numbers of the `count` chosen samples that take most in the model, in growing order."""
        ...


@runtime_checkable
class Glancing(Protocol):
    """A `Kind` of whose samples more is seen at a glance than what is learned from."""

    def glance(self, samples: SampleSet, inputs: Inputs, members: Ints, threads: int) -> Glance | None:
        """What the samples `members` show at a glance; `None` where that would take too long."""
        ...
