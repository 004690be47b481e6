"""Records as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from caudal.core.errors import CaudalError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.plan import Holder
from caudal.runs.doctor import Fact
from caudal.runs.plan import TrainPlan
from caudal.runs.result import Result

_BAR_CELLS = 36


def _grid(*justify: JustifyMethod) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for side in justify:
        table.add_column(justify=side)
    return table


def bar(part: float, cells: int = _BAR_CELLS) -> Text:
    """A share in [0, 1] as a bar; red past 1."""
    full = min(cells, round(part * cells))
    style = "red" if part > 1 else "green" if part < 0.9 else "yellow"
    return Text("█" * full, style=style) + Text("░" * (cells - full), style="dim")


def plan_card(plan: TrainPlan) -> RenderableType:
    """What a run is promised: data, bytes by holder, levers and why, speed."""
    facts, memory = plan.facts, plan.memory
    about = _grid("left", "left")
    about.add_row(
        _("data"),
        facts.line(),
    )
    training = plan.spec.training
    about.add_row(
        _("training"),
        _("{steps} steps of {batch} {samples} ({epochs:.1f} epochs) on {device}").format(
            steps=plan.steps,
            batch=training.batch,
            samples=facts.samples,
            epochs=plan.steps * training.batch / facts.samples_per_epoch,
            device=plan.device,
        ),
    )
    about.add_row(
        _("speed"),
        _("about {rate:.0f} samples/s, {minutes:.1f} minutes").format(
            rate=plan.samples_per_second, minutes=plan.seconds / 60
        ),
    )
    parts: list[RenderableType] = [about, Text()]
    for pool in ("ram", "vram"):
        holders = [h for h in memory.holders if h.pool == pool]
        budget = memory.ram if pool == "ram" else memory.vram
        if holders and budget:
            parts += [_pool(pool, holders, budget), Text()]
    levers = _grid("left", "right", "left")
    for lever in memory.levers:
        levers.add_row(Text(lever.name, style="bold"), lever.value, Text(lever.why, style="dim"))
    for row in memory.rejected:
        levers.add_row(Text(_("not"), style="dim"), "", Text(f"{row.change}: {row.why}", style="dim"))
    parts.append(levers)
    parts += [Text(f"! {text}", style="yellow") for text in plan.warnings]
    return Panel(Group(*parts), title=_("plan · {task}").format(task=plan.spec.task), title_align="left")


def _pool(pool: str, holders: Sequence[Holder], budget: Bytes) -> RenderableType:
    table = _grid("left", "right", "left")
    total = 0
    for holder in holders:
        total += int(holder.bytes)
        sign = "" if holder.exact else "~"
        table.add_row(
            f"{holder.name}",
            f"{sign}{holder.bytes}",
            bar(int(holder.bytes) / budget),
        )
    table.add_row(
        Text(_("predicted peak of {pool}").format(pool=pool), style="bold"),
        Text(str(Bytes(total)), style="bold"),
        bar(total / budget) + Text(f" {_('of')} {budget}"),
    )
    return table


def result_table(result: Result) -> RenderableType:
    """How a verb ended: promised and measured, figures, warnings."""
    table = _grid("left", "left")
    if result.peak_bytes and result.predicted_bytes and result.budget_bytes:
        for pool in ("ram", "vram"):
            budget, peak = result.budget_bytes[pool], result.peak_bytes[pool]
            if not budget:
                continue
            predicted = result.predicted_bytes[pool]
            error = (predicted - peak) / max(1, peak)
            table.add_row(
                pool,
                _("budget {budget}, predicted {predicted}, measured {peak} (error {error:+.1%})").format(
                    budget=Bytes(budget), predicted=Bytes(predicted), peak=Bytes(peak), error=error
                ),
            )
    if result.seconds is not None:
        table.add_row(_("time"), _speed(result))
    if result.levers:
        table.add_row(_("levers"), ", ".join(f"{name} {value}" for name, value in result.levers.items()))
    for number, act in enumerate(result.acts or ()):
        table.add_row(_("on the way") if not number else "", act)
    for name, value in (result.metrics or {}).items():
        table.add_row(name, "—" if value is None else _figure(name, value))
    for label, path in ((_("run"), result.run), (_("output"), result.output)):
        if path:
            table.add_row(label, Text(path, style="bold", overflow="fold"))
    parts: list[RenderableType] = [table]
    parts += [Text(f"! {text}", style="yellow") for text in result.warnings]
    return Panel(Group(*parts), title=result.verb, title_align="left")


def _figure(name: str, value: float) -> str:
    if name == "bytes":
        return str(Bytes(value))
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _speed(result: Result) -> str:
    text = _("{seconds:.1f} s").format(seconds=result.seconds)
    if result.samples_per_second:
        rate = result.samples_per_second
        text += _(", {rate} samples/s").format(rate=f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}")
    if result.stall is not None:
        text += _(", waiting for data {stall:.1%}").format(stall=result.stall)
    return text


def facts_table(facts: list[Fact]) -> RenderableType:
    """What the doctor found, a mend under each fault."""
    table = _grid("left", "left")
    for fact in facts:
        table.add_row(fact.name, Text(fact.value, style="" if not fact.mend else "yellow"))
        if fact.mend:
            table.add_row("", Text(f"→ {fact.mend}", style="dim"))
    return table


def show_error(console: Console, error: CaudalError) -> None:
    """One sentence with the fact, one with the mend."""
    console.print(Text(_("error: "), style="bold red") + Text(error.message, style="default"), soft_wrap=True)
    if error.hint:
        console.print(Text("  → " + error.hint), soft_wrap=True)
