"""What a training run is promised: the record that is printed, stored, and held against the measured."""

from __future__ import annotations

from caudal.core.config import Frozen
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult
from caudal.memory.plan import MemoryPlan
from caudal.runs.spec import RunSpec

LARGEST_VIEW_PX = 1024
"""The side of the largest window that is scored at once while training goes on."""


class DataFacts(Frozen):
    """What the headers say of the data."""

    images: int
    held_out: int
    bands: int
    dtype: str
    band_names: tuple[str, ...]
    smallest_px: tuple[int, int]
    largest_px: tuple[int, int]
    decoded: Bytes
    on_disk: Bytes
    samples_per_epoch: int
    block_px: tuple[int, int]


class TrainPlan(Frozen):
    """A spec with every open choice made, and the bytes that it will take."""

    spec: RunSpec
    device: str
    precision: str
    patch_px: int
    micro_batch: int
    open_chunks: int
    arena: Bytes
    compute_threads: int
    memory: MemoryPlan
    probe: ProbeResult
    facts: DataFacts
    seconds: float
    samples_per_second: float
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.spec.task} · {self.facts.images} images · {self.patch_px} px · {self.device}",
                *(f"  {h.name:32s} {h.bytes!s:>10s} {h.pool}" for h in self.memory.holders),
                f"  predicted {self.memory.predicted('ram')} of {self.memory.ram} ram",
            ]
        )
