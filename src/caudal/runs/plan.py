"""What a training run is promised: the record that is printed, stored, and held against the measured."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from caudal.core.config import Frozen
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult
from caudal.memory.plan import MemoryPlan, Point
from caudal.runs.facts import Facts
from caudal.runs.spec import RunSpec

LARGEST_VIEW_PX = 1024
"""The side of the largest window that is scored at once while training goes on."""


class TrainPlan(Frozen):
    """A spec with every open choice made, and the bytes that it will take.

    `asked` is the spec as it was given; `spec` differs where a lever had to change numbers.
    `steps` are those that will be taken: of a model that learns in one pass, the batches of an epoch.
    `train` and `held_out` are numbers of images, for data that have few. `margin` is the share of the
    prediction that was added for what past runs of its `kind` took beyond theirs, `margin_vram` the same of
    the device.
    """

    spec: RunSpec
    asked: RunSpec
    device: str
    precision: str
    point: Point
    arena: Bytes
    compute_threads: int
    memory: MemoryPlan
    probe: ProbeResult
    facts: Facts
    seconds: float
    samples_per_second: float
    steps: int = Field(0, ge=0)
    train: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    margin: float = 0.0
    margin_vram: float = 0.0

    @property
    def micro_batch(self) -> int:
        """Samples that go through the model at once."""
        return self.point.micro_batch

    @property
    def kind(self) -> str:
        """What runs have to have in common to learn from each other's errors."""
        return kind_of(self.spec, self.facts.shape, self.device, self.precision)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.spec.task} · {self.facts.line()} · {self.device}",
                *(f"  {h.name:32s} {h.bytes!s:>10s} {h.pool}" for h in self.memory.holders),
                f"  predicted {self.memory.predicted('ram')} of {self.memory.ram} ram",
            ]
        )


def kind_of(spec: RunSpec, shape: str, device: str, precision: str) -> str:
    """See `TrainPlan.kind`: the same model on samples of the same shape."""
    config = " ".join(f"{key}={value}" for key, value in sorted(spec.model.config.items()))
    return f"{spec.task} {spec.model.name} {config} {shape} batch {spec.training.batch} {device} {precision}"


def stored_plan(path: Path) -> TrainPlan | None:
    """The plan in a file; none where there is none yet, or it was written by another version."""
    try:
        return TrainPlan.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
