"""What a run is promised: who will hold how many bytes, which levers were set, and why. Records only."""

from __future__ import annotations

from typing import Literal

from caudal.core.config import Frozen
from caudal.core.units import Bytes

Pool = Literal["ram", "vram"]


class Holder(Frozen):
    """A named owner of bytes. `exact` bytes are computed, the others were measured by a probe."""

    name: str
    bytes: Bytes
    pool: Pool = "ram"
    exact: bool = True


class Point(Frozen):
    """A position of every lever of a training run that is turned inside one search; see `memory/levers`.

    `ahead` batches are read ahead by `threads` threads; `recompute` levels of the model compute their
    activations again.
    """

    micro_batch: int
    open_blocks: int
    ahead: int = 1
    threads: int = 1
    heap: int = 0
    recompute: int = 0
    optimizer: int = 0


class LeverSet(Frozen):
    """A lever, the position it was set to, and why."""

    name: str
    value: str
    why: str


class Rejected(Frozen):
    """A neighbour of the plan that was looked at and not taken."""

    change: str
    why: str


class MemoryPlan(Frozen):
    """Budget, holders and levers of a run. A pool that a run does not use has no budget."""

    ram: Bytes
    vram: Bytes | None = None
    holders: tuple[Holder, ...]
    levers: tuple[LeverSet, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    def predicted(self, pool: Pool) -> Bytes:
        """The predicted peak of a pool: the sum of its holders."""
        return Bytes(sum(holder.bytes for holder in self.holders if holder.pool == pool))

    def predicted_bytes(self) -> dict[str, int]:
        """The predicted peaks, as plain numbers by pool."""
        return {"ram": int(self.predicted("ram")), "vram": int(self.predicted("vram"))}

    def budget_bytes(self) -> dict[str, int]:
        """The budgets, as plain numbers by pool; 0 for a pool that is not used."""
        return {"ram": int(self.ram), "vram": int(self.vram or 0)}
