"""The exact search over a small lattice of levers, in order of price.

What it returns fits by its own prediction, and it says what it looked at and why not. What cannot fit
is refused with the least that would, who holds it, and the cheapest change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.levers.micro_batch import MicroBatch
from caudal.memory.levers.shuffle_bytes import ShuffleBytes
from caudal.memory.plan import Holder, LeverSet, MemoryPlan, Pool, Rejected

# A larger micro-batch must earn its bytes: one that is not this much faster is not taken.
WORTHWHILE_GAIN = 0.1

Holders = Callable[[int, int], Sequence[Holder]]
"""The holders of a run for (micro-batch, open blocks)."""


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
    micro_batch: MicroBatch,
    shuffle: ShuffleBytes,
    seconds_per_sample: Callable[[int], float],
) -> tuple[MemoryPlan, int, int]:
    """Choose micro-batch and open blocks; returns the plan and the two.

    Exact micro-batches come before fewer open blocks, and both before micro-batches that change the
    model's statistics. Among micro-batches that fit, the smallest that is within `WORTHWHILE_GAIN` of
    the fastest wins: speed that is not there is not worth its bytes.

    Raises:
        DoesNotFit: not even the smallest lattice point fits.
    """
    rejected: list[Rejected] = []
    exact = [size for size in micro_batch.positions() if micro_batch.is_exact(size)]
    inexact = [size for size in micro_batch.positions() if not micro_batch.is_exact(size)]
    for sizes in (exact, inexact):
        for blocks in shuffle.positions():
            fitting = [size for size in sizes if fits(holders(size, blocks), ram, vram)]
            rejected += _too_large(set(sizes) - set(fitting), blocks, holders, ram, vram)
            if fitting:
                best = min(seconds_per_sample(size) for size in fitting)
                size = min(s for s in fitting if seconds_per_sample(s) <= best * (1 + WORTHWHILE_GAIN))
                levers = _levers(micro_batch, size, shuffle, blocks, fitting)
                chosen = tuple(holders(size, blocks))
                plan = MemoryPlan(
                    ram=ram, vram=vram, holders=chosen, levers=tuple(levers), rejected=tuple(rejected[-4:])
                )
                return plan, size, blocks
    raise refusal(holders(1, shuffle.positions()[-1]), ram, vram)


def _too_large(
    sizes: set[int], blocks: int, holders: Holders, ram: Bytes, vram: Bytes | None
) -> list[Rejected]:
    rows = []
    for size in sorted(sizes):
        held = holders(size, blocks)
        pool: Pool = "ram" if total(held, "ram") > ram else "vram"
        rows.append(
            Rejected(
                change=_("micro-batch {size}, {blocks} open chunks").format(size=size, blocks=blocks),
                why=_("needs {needed} of {pool}").format(needed=total(held, pool), pool=pool),
            )
        )
    return rows


def _levers(
    micro_batch: MicroBatch, size: int, shuffle: ShuffleBytes, blocks: int, fitting: list[int]
) -> list[LeverSet]:
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
    why = _("as many as are wanted") if blocks == shuffle.wanted else _("the most that fit")
    return [*levers, LeverSet(name=shuffle.name, value=str(blocks), why=why)]


def refusal(holders: Sequence[Holder], ram: Bytes, vram: Bytes | None) -> DoesNotFit:
    """The error that says what the least is, and who holds it."""
    pool: Pool = "ram" if total(holders, "ram") > ram else "vram"
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
