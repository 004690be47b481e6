"""Choosing the levers of generation: the cheapest setup that fits both budgets, or the least that would."""

from __future__ import annotations

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.generation.setups import Setup, holders, setups
from caudal.memory.generation.sizes import PipelineSize, Place
from caudal.memory.plan import Holder, LeverSet, MemoryPlan, Pool, Rejected
from caudal.memory.planner import fits, total

_SHOWN = 4  # rejected neighbours
_SPARED = 0.05  # of a budget, which blocks that could as well be read do not fill


def plan_generation(
    size: PipelineSize, place: Place, ram: Bytes, vram: Bytes | None, exact: bool = False
) -> tuple[MemoryPlan, Setup]:
    """The plan and the levers of the cheapest setup that fits.

    With `exact`, no lever that changes numbers is pulled. With weights on disk, as many blocks stay in memory
    as the budget has room for.

    Raises:
        DoesNotFit: not even the last one does; says the least of the pool that is short.
    """
    rejected: list[Rejected] = []
    for setup in setups(place.device, exact):
        held = holders(setup, size, place)
        if not fits(held, ram, vram):
            rejected.append(_too_large(setup, held, ram))
            continue
        if setup.offload == "disk":
            setup = setup.model_copy(update={"resident": _room(setup, size, place, ram, vram)})
            held = holders(setup, size, place)
        plan = MemoryPlan(
            ram=ram,
            vram=vram,
            holders=tuple(held),
            levers=tuple(_levers(setup, size)),
            rejected=tuple(_last_of_each(rejected)[-_SHOWN:]),
        )
        return plan, setup
    raise _refusal(holders(least(place.device, exact), size, place), ram, vram)


def least(device: str, exact: bool = False) -> Setup:
    """The setup that holds least, in both pools."""
    return list(setups(device, exact))[-1]


def _refusal(held: list[Holder], ram: Bytes, vram: Bytes | None) -> DoesNotFit:
    """The error that says the least of what is short, and who holds it."""
    pool: Pool = "ram" if total(held, "ram") > ram else "vram"
    budgets = {"ram": ram, "vram": vram or Bytes(0)}
    rows = sorted((holder for holder in held if holder.pool == pool), key=lambda holder: -holder.bytes)
    # `budgets` has no other names than pools, which mypy forgets in the comprehension.
    least_of = {name: total(held, name) for name in budgets if vram is not None or name == "ram"}  # type: ignore[arg-type]
    return DoesNotFit(
        _("These pictures need at least {needed} of {pool}, and the budget is {budget}: {holders}.").format(
            needed=total(held, pool),
            pool=pool,
            budget=budgets[pool],
            holders=", ".join(f"{holder.name} {holder.bytes}" for holder in rows[:4]),
        ),
        _("Give {flags}, or ask for smaller pictures or fewer at once.").format(
            flags=" ".join(f"--{name} {str(_up(least)).replace(' ', '')}" for name, least in least_of.items())
        ),
        pool=pool,
        needed=int(total(held, pool)),
        budget=int(budgets[pool]),
        least={name: int(least) for name, least in least_of.items()},
        holders={holder.name: int(holder.bytes) for holder in rows},
    )


def _up(nbytes: Bytes) -> Bytes:
    """A little more, so that what is printed in three digits is enough."""
    return Bytes(nbytes * 1.01)


def moved_bytes(setup: Setup, size: PipelineSize) -> Bytes:
    """What every step moves: over the bus of the device, or from disk."""
    core = sum(part.fp8 if setup.storage == "fp8" else part.bytes for part in size.core)
    if setup.offload in ("group", "group lean"):
        return Bytes(core)
    if setup.offload == "disk":
        return Bytes(max(0, core - setup.resident - sum(part.always for part in size.core)))
    return Bytes(0)


def _room(setup: Setup, size: PipelineSize, place: Place, ram: Bytes, vram: Bytes | None) -> Bytes:
    """Bytes of blocks that may stay: all that the steps leave free in the pool where they would be."""
    pool: Pool = "vram" if place.device == "cuda" else "ram"
    budget = (vram or Bytes(0)) if pool == "vram" else ram
    streamed = sum(part.bytes - part.always for part in size.core)
    low, high = 0, int(streamed)
    while high - low > 2**20:  # the phases differ, so it is sought and not subtracted
        middle = (low + high) // 2
        held = holders(setup.model_copy(update={"resident": Bytes(middle)}), size, place)
        low, high = (middle, high) if total(held, pool) <= budget * (1 - _SPARED) else (low, middle)
    return Bytes(low)


def named(setup: Setup) -> str:
    """A setup in a few words."""
    words = [_("text encoders {state}").format(state=setup.encoders)]
    if setup.offload != "none":
        words.append(_("offload {how}").format(how=setup.offload))
    if setup.storage != "full":
        words.append(setup.storage)
    words.append(_("decoder {way}").format(way=setup.decoding))
    return ", ".join(words)


def _too_large(setup: Setup, held: list[Holder], ram: Bytes) -> Rejected:
    pool: Pool = "ram" if total(held, "ram") > ram else "vram"
    return Rejected(
        change=named(setup), why=_("needs {needed} of {pool}").format(needed=total(held, pool), pool=pool)
    )


def _last_of_each(rejected: list[Rejected]) -> list[Rejected]:
    """Of neighbours that differ in their decoder alone, the last: it held least."""
    kept: dict[str, Rejected] = {}
    for row in rejected:
        kept[row.change.rpartition(",")[0]] = row
    return list(kept.values())


def _levers(setup: Setup, size: PipelineSize) -> list[LeverSet]:
    moved = moved_bytes(setup, size)
    reasons = {
        "none": _("all networks stay where they compute"),
        "group": _(
            "a layer at a time is on the device: {bytes} cross the bus in every step, while it computes"
        ),
        "group lean": _(
            "as group, without page-locked copies: less RAM, and {bytes} a step cross more slowly"
        ),
        "model": _("one network at a time is on the device"),
        "disk": _("{bytes} of weights are read from disk in every step"),
    }
    encoders = {
        "kept": _("a new prompt costs nothing but its encoding"),
        "freed": _("a new prompt reads them again"),
    }
    storage = {
        "full": _("weights are kept as they are computed with"),
        "fp8": _("weights are kept in 8 bits: the numbers change a little"),
    }
    decoding = {
        "whole": _("no seams, and all pictures of a batch at once"),
        "sliced": _("one picture of a batch after the other"),
        "tiled 512": _("tiles that overlap by a quarter; tones may shift a little"),
        "tiled 256": _("small tiles that overlap by a quarter; tones may shift"),
    }
    return [
        LeverSet(name="encoders", value=setup.encoders, why=encoders[setup.encoders]),
        LeverSet(name="offload", value=setup.offload, why=reasons[setup.offload].format(bytes=moved)),
        LeverSet(name="storage", value=setup.storage, why=storage[setup.storage]),
        LeverSet(name="decoder", value=setup.decoding, why=decoding[setup.decoding]),
    ]
