"""The exact search over a small lattice of levers, in order of price.

What it returns fits by its own prediction, and it says what it looked at and why not. What cannot fit
is refused with the least that would, who holds it, and the cheapest change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.levers.checkpointing import Checkpointing
from caudal.memory.levers.heap import Heap
from caudal.memory.levers.micro_batch import MicroBatch
from caudal.memory.levers.optimizer_state import OptimizerState
from caudal.memory.levers.prefetch import Prefetch
from caudal.memory.levers.shuffle_bytes import ShuffleBytes
from caudal.memory.levers.threads import Threads
from caudal.memory.plan import Holder, LeverSet, MemoryPlan, Point, Pool, Rejected

# A larger micro-batch must earn its bytes: one that is not this much faster is not taken.
WORTHWHILE_GAIN = 0.1
_SHOWN = 4  # rejected neighbours


@dataclass(frozen=True)
class Lattice:
    """The levers of a training run."""

    micro_batch: MicroBatch
    shuffle: ShuffleBytes
    prefetch: Prefetch
    threads: Threads
    heap: Heap
    checkpointing: Checkpointing
    optimizer: OptimizerState

    def rows(self, seconds_per_sample: Callable[[Point], float]) -> Iterator[list[Point]]:
        """Points that differ in their micro-batch alone, row after row in order of price.

        Less of the stream comes first, which costs next to no time: fewer open blocks, less read ahead, fewer
        threads. Then the levers of a step that change no number, the fastest setting first. At last
        micro-batches over which statistics are of fewer samples.
        """
        exact = [size for size in self.micro_batch.positions() if self.micro_batch.is_exact(size)]
        inexact = [size for size in self.micro_batch.positions() if not self.micro_batch.is_exact(size)]
        for sizes in filter(None, (exact, inexact)):
            for heap, levels, optimizer in self._of_steps(sizes, seconds_per_sample):
                for threads, ahead, blocks in itertools.product(
                    self.threads.positions(), self.prefetch.positions(), self.shuffle.positions()
                ):
                    yield [
                        Point(
                            micro_batch=size,
                            open_blocks=blocks,
                            ahead=ahead,
                            threads=threads,
                            heap=heap,
                            recompute=levels,
                            optimizer=optimizer,
                        )
                        for size in sizes
                    ]

    def _of_steps(
        self, sizes: Sequence[int], seconds_per_sample: Callable[[Point], float]
    ) -> list[tuple[int, int, int]]:
        """Measured positions of heap, checkpointing and optimizer state: at rest, then the fastest first."""

        def price(position: tuple[int, int, int]) -> tuple[float, int]:
            heap, levels, optimizer = position
            points = (
                Point(micro_batch=size, open_blocks=2, heap=heap, recompute=levels, optimizer=optimizer)
                for size in sizes
            )
            # What should be slower and was measured a little faster is not taken for it.
            return (round(min(map(seconds_per_sample, points)), 9), sum(position))

        settings = itertools.product(
            self.heap.positions(), self.checkpointing.positions(), self.optimizer.positions()
        )
        # Freed activations that stay in the heap are not freed: computing them again alone brings a tenth.
        useful = (
            p
            for p in settings
            if not (p[1] and p[0] == Heap.KEPT and Heap.GIVEN_BACK in self.heap.positions())
        )
        # A probe that the kernel ended knows some of them alone; of others there is nothing to say.
        measured = (p for p in useful if math.isfinite(price(p)[0]))
        return sorted(measured, key=lambda p: (any(p), price(p)))


Holders = Callable[[Point], Sequence[Holder]]
"""The holders of a run with its levers at a point."""


def total(holders: Sequence[Holder], pool: Pool) -> Bytes:
    """The sum of one pool."""
    return Bytes(sum(holder.bytes for holder in holders if holder.pool == pool))


def fits(holders: Sequence[Holder], ram: Bytes, vram: Bytes | None) -> bool:
    """Whether the holders stay inside both budgets."""
    return total(holders, "ram") <= ram and (vram is None or total(holders, "vram") <= vram)


def plan_training(
    ram: Bytes,
    vram: Bytes | None,
    holders: Holders,
    lattice: Lattice,
    seconds_per_sample: Callable[[Point], float],
) -> tuple[MemoryPlan, Point]:
    """Choose a point; returns the plan and the point.

    Of the first row in which something fits, the smallest micro-batch that is within `WORTHWHILE_GAIN` of the
    fastest wins: speed that is not there is not worth its bytes. `seconds_per_sample` is infinite where a
    point's levers on a step were not measured; `holders` is not asked there.

    Raises:
        DoesNotFit: not even the smallest lattice point fits.
    """
    rejected: list[Rejected] = []
    for row in lattice.rows(seconds_per_sample):
        fitting = [point for point in row if fits(holders(point), ram, vram)]
        for point in reversed(row):
            if point not in fitting:
                rejected = [*rejected[1 - _SHOWN :], _too_large(lattice, point, holders(point), ram, vram)]
        if fitting:
            best = min(map(seconds_per_sample, fitting))
            quick = [p for p in fitting if seconds_per_sample(p) <= best * (1 + WORTHWHILE_GAIN)]
            point = min(quick, key=lambda p: p.micro_batch)
            return (
                MemoryPlan(
                    ram=ram,
                    vram=vram,
                    holders=tuple(holders(point)),
                    levers=tuple(_levers(lattice, point, [p.micro_batch for p in fitting])),
                    rejected=tuple(rejected),
                ),
                point,
            )
    points = (point for row in lattice.rows(seconds_per_sample) for point in row)
    raise refusal(_least(map(holders, points), ram, vram), ram, vram)


def _least(points: Iterable[Sequence[Holder]], ram: Bytes, vram: Bytes | None) -> Sequence[Holder]:
    """What comes nearest to fitting: of those inside one budget, the one that takes least of the other.

    Where no point is inside the RAM budget, that is what is short, whatever the card has.
    """

    def lack(held: Sequence[Holder]) -> tuple[bool, int, int]:
        in_ram = fits(held, ram, None)
        first: Pool = "vram" if in_ram and vram is not None else "ram"
        return not in_ram, total(held, first), total(held, "ram")

    return min(points, key=lack)


def _short_pool(holders: Sequence[Holder], ram: Bytes, vram: Bytes | None) -> Pool:
    """The pool whose budget the holders pass; RAM if they pass both: of it `_least` has the least then."""
    return "ram" if total(holders, "ram") > ram or fits(holders, ram, vram) else "vram"


def _too_large(
    lattice: Lattice, point: Point, held: Sequence[Holder], ram: Bytes, vram: Bytes | None
) -> Rejected:
    pool = _short_pool(held, ram, vram)
    change = _("micro-batch {size}, {blocks} open chunks").format(
        size=point.micro_batch, blocks=point.open_blocks
    )
    others = [f"{row.name} {row.value}" for row in _beside(lattice, point)]
    why = _("needs {needed} of {pool}").format(needed=total(held, pool), pool=pool)
    return Rejected(change=", ".join([change, *others]), why=why)


def _levers(lattice: Lattice, point: Point, fitting: list[int]) -> list[LeverSet]:
    micro_batch, shuffle, size = lattice.micro_batch, lattice.shuffle, point.micro_batch
    if not micro_batch.is_exact(size):
        why = _("nothing larger fits; normalization sees {size} samples at once, not {group}").format(
            size=size, group=micro_batch.group
        )
    elif size == max(fitting) and size < micro_batch.batch:
        why = _("the largest that fits; {parts} make one step of {batch}").format(
            parts=micro_batch.batch // size, batch=micro_batch.batch
        )
    elif size < max(fitting):
        why = _("a larger one fits but is not faster")
    else:
        why = _("the whole batch fits")
    levers = [LeverSet(name=micro_batch.name, value=str(size), why=why)]
    why = _("as many as are wanted") if point.open_blocks == shuffle.wanted else _("the most that fit")
    levers.append(LeverSet(name=shuffle.name, value=str(point.open_blocks), why=why))
    return levers + _beside(lattice, point)


def _beside(lattice: Lattice, point: Point) -> list[LeverSet]:
    """Levers that stand where they cost something; at rest they are not spoken of."""
    rows = []
    if point.ahead < lattice.prefetch.wanted:
        rows.append((lattice.prefetch.name, point.ahead, _("batches read ahead; the order is the same")))
    if point.threads < lattice.threads.wanted:
        rows.append((lattice.threads.name, point.threads, _("fewer decode at once; the order is the same")))
    if point.heap:
        why = _("freed blocks go back at once; the numbers are the same, a step takes longer")
        rows.append((lattice.heap.name, point.heap, why))
    if point.recompute:
        why = _("levels whose activations are computed again; the same numbers, in more time")
        rows.append((lattice.checkpointing.name, point.recompute, why))
    if point.optimizer:
        why = _("the optimizer's state lies elsewhere and is brought for each step; the same numbers")
        rows.append((lattice.optimizer.name, point.optimizer, why))
    return [LeverSet(name=name, value=str(value), why=why) for name, value, why in rows]


def refuse_above(budget: Bytes, needed: Bytes, pool: Pool = "ram") -> None:
    """Refuse what needs more of a pool than the budget, where nobody knows who holds how much of it.

    Raises:
        DoesNotFit: it does.
    """
    if needed > budget:
        raise DoesNotFit(
            _("This needs at least {needed} of {pool}, and the budget is {budget}.").format(
                needed=needed, pool=pool, budget=budget
            ),
            _("Give --{pool} {needed} or more.").format(pool=pool, needed=str(needed).replace(" ", "")),
            pool=pool,
            needed=int(needed),
            budget=int(budget),
        )


def refusal(holders: Sequence[Holder], ram: Bytes, vram: Bytes | None) -> DoesNotFit:
    """The error that says what the least is of the pool that is short, and who holds it."""
    pool = _short_pool(holders, ram, vram)
    budget = ram if pool == "ram" else (vram or Bytes(0))
    needed = total(holders, pool)
    rows = sorted((h for h in holders if h.pool == pool), key=lambda h: -h.bytes)
    named = ", ".join(f"{holder.name} {holder.bytes}" for holder in rows[:4])
    return DoesNotFit(
        _("This needs at least {needed} of {pool}, and the budget is {budget}: {holders}.").format(
            needed=needed, pool=pool, budget=budget, holders=named
        ),
        _("Give --{pool} {needed} or more, or a smaller patch or model in the spec.").format(
            pool=pool, needed=str(needed).replace(" ", "")
        ),
        pool=pool,
        needed=int(needed),
        budget=int(budget),
        holders={holder.name: int(holder.bytes) for holder in rows},
    )
