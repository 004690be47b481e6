"""Who holds bytes in the phase of a training that holds most, from what a probe measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.memory import cost, planner
from caudal.memory.cost import ProbeResult
from caudal.memory.levers.optimizer_state import OptimizerState
from caudal.memory.plan import Holder, Point, Pool
from caudal.runs import watched

_OPEN_AND_CACHED = Bytes(9 * MIB)  # event queues, curves, the command line: measured, and small


def beside_bytes(index_bytes: int) -> Bytes:
    """What a run holds that a probe of it does not, its samples aside."""
    return Bytes(_OPEN_AND_CACHED + index_bytes + watched.watcher_bytes())


def training_holders(
    probe: ProbeResult,
    point: Point,
    arena_bytes: Bytes,
    parent: int,
    index_bytes: int,
    scores_between: bool,
) -> list[Holder]:
    """Who holds bytes in the phase of a training run that holds most; the sum is the predicted peak.

    Steps decode and do not score. A score in between, where there is one, finds the arena full and the
    threads at rest, and leaves its kernels to the next steps. The last one finds those that steps have left.
    """
    ram, vram = cost.step_bytes(probe, point)
    on_device = probe.device == "cuda"
    # The probe's own base begins where an interpreter with nothing but the data rooms stands.
    always = [
        Holder(name=_("interpreter and libraries"), bytes=Bytes(max(probe.imported, parent)), exact=False),
        Holder(name=_("index, files, curves"), bytes=Bytes(_OPEN_AND_CACHED + index_bytes), exact=False),
    ]
    if watched.watcher_bytes():
        always.append(Holder(name=_("watcher of the run"), bytes=watched.watcher_bytes()))
    static = _static_holders(probe, point, on_device)
    stepping = Holder(name=_("activations and workspace"), bytes=ram, exact=False)
    arena = Holder(name=_("samples (arena)"), bytes=arena_bytes)
    decoding = Holder(name=_("decoding"), bytes=cost.decoding_bytes(probe, point.threads), exact=False)
    kept = Holder(name=_("left by scoring"), bytes=probe.scoring_left, exact=False)
    beside = Holder(
        name=_("scoring"), bytes=Bytes(max(0, probe.scoring - ram - probe.scoring_left)), exact=False
    )
    alone = Holder(name=_("scoring"), bytes=probe.scoring, exact=False)
    # The kernels of both are the same to a great part.
    most_left = max(cost.left_bytes(probe, point), probe.scoring_left)
    left = Holder(name=_("left by steps"), bytes=most_left, exact=False)
    phases = [[*always, *static, stepping, arena, decoding], [*always, left, alone]]
    if scores_between:
        phases = [[*phases[0], kept], [*always, *static, stepping, arena, beside, kept], phases[1]]
    most = max(phases, key=lambda phase: planner.total(phase, "ram"))
    if on_device:
        on_card = [Holder(name=_("activations and workspace"), bytes=vram, pool="vram", exact=False)]
        if probe.scoring_vram > vram:  # it begins with what steps keep given back, so that the larger counts
            rest = Bytes(probe.scoring_vram - vram)
            on_card.append(Holder(name=_("scoring"), bytes=rest, pool="vram", exact=False))
        on_host = [holder for holder in most if holder.pool == "ram"]
        most = [*on_host, *(holder for holder in static if holder.pool == "vram"), *on_card]
    return [holder for holder in most if holder.bytes]


def _static_holders(probe: ProbeResult, point: Point, on_device: bool) -> list[Holder]:
    """Weights and all that is as large, each where it lies."""
    pool: Pool = "vram" if on_device else "ram"
    if point.optimizer == OptimizerState.HERE:
        return cost.static_holders(probe.static, pool)
    here = {name: held for name, held in probe.static.items() if name != "optimizer"}
    rows = [
        *cost.static_holders(here, pool),
        Holder(
            name=_("optimizer state, at a time"),
            bytes=probe.elsewhere_bytes,
            pool=pool,
        ),
    ]
    if on_device:
        rows.append(Holder(name=_("optimizer"), bytes=Bytes(probe.static["optimizer"])))
    return rows


def margin_holders(found: Sequence[Holder], margins: Mapping[str, tuple[float, int]]) -> list[Holder]:
    """What past runs say to set aside of each pool."""
    rows = []
    for pool, (share, runs) in margins.items():
        name = (
            _("margin, learned from {count} runs").format(count=runs) if runs else _("margin of a first run")
        )
        more = Bytes(share * planner.total(found, cast(Pool, pool)))
        rows += [Holder(name=name, bytes=more, pool=cast(Pool, pool))] if share else []
    return rows
