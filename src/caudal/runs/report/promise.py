"""What the plan promised beside what was measured, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.plan import Holder, Pool
from caudal.runs.report import axes
from caudal.runs.report.story import Story

POOLS: tuple[Pool, ...] = ("ram", "vram")
_NAMED_HOLDERS = 6  # more colours than this are not told apart


@dataclass(frozen=True)
class Row:
    """A holder in the table and in the bar: its share of the bar's whole width in percent."""

    name: str
    bytes: str
    share: str
    kind: str
    style: str
    width: float


@dataclass(frozen=True)
class PoolPage:
    """Promised and measured bytes of one pool, ready to be shown; widths and places in percent."""

    name: str
    budget: str
    predicted: str
    measured: str
    error: str
    over: bool
    rows: list[Row]
    budget_at: float
    measured_width: float


def pool_page(story: Story, pool: Pool) -> PoolPage | None:
    """Promised and measured bytes of a pool that the run uses."""
    if story.plan is None:
        return None
    memory = story.plan.memory
    budget = int((memory.ram if pool == "ram" else memory.vram) or 0)
    predicted, measured = int(memory.predicted(pool)), story.peaks.get(pool, 0)
    if not budget or not predicted:
        return None
    whole = max(budget, predicted, measured)
    return PoolPage(
        name=_("RAM") if pool == "ram" else _("VRAM"),
        budget=str(Bytes(budget)),
        predicted=str(Bytes(predicted)),
        measured=str(Bytes(measured)) if measured else "",
        error=axes.deviation(measured, predicted) if measured else "",
        over=measured > budget,
        rows=_rows([h for h in memory.holders if h.pool == pool], predicted, whole),
        budget_at=100 * budget / whole,
        measured_width=100 * measured / whole,
    )


def _rows(holders: list[Holder], predicted: int, whole: int) -> list[Row]:
    ordered = sorted(holders, key=lambda holder: -holder.bytes)
    return [
        Row(
            name=holder.name,
            bytes=str(holder.bytes),
            share=axes.percent(holder.bytes / predicted),
            kind=_("computed") if holder.exact else _("a probe"),
            style=f"h{k}" if k < _NAMED_HOLDERS else "hx",
            width=100 * holder.bytes / whole,
        )
        for k, holder in enumerate(ordered)
    ]


def promises(story: Story) -> list[tuple[str, str, str, str]]:
    """What else the plan said, what came of it, and how far that is off."""
    if story.plan is None or story.samples_per_second is None:
        return []
    rate, plan = story.samples_per_second, story.plan
    rows = [
        (
            _("Samples a second"),
            f"{plan.samples_per_second:.0f}",
            f"{rate:.0f}",
            axes.deviation(rate, plan.samples_per_second),
        )
    ]
    if story.done_steps >= story.total_steps and not story.resumed_at:
        measured = story.step_seconds
        rows.append(
            (
                _("Time of all steps"),
                axes.seconds(plan.seconds),
                axes.seconds(measured),
                axes.deviation(measured, plan.seconds),
            )
        )
    return rows
