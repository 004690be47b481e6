"""Events as one live line on a terminal; nothing where there is none. And for whoever watches, in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from caudal.core.events import (
    Event,
    JsonLines,
    MemoryRead,
    Paced,
    PartDone,
    RunStarted,
    Scanned,
    Sink,
    StepDone,
    TileDone,
    Validated,
    Warned,
)
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.runs.watched import EVENTS

_DOING = {
    "predict": _("predicting"),
    "evaluate": _("scoring"),
    "explain": _("explaining"),
    "pack": _("packing"),
}


@contextmanager
def heard(console: Console) -> Iterator[list[Sink]]:
    """Who hears of a verb that writes no run of its own: a live line, and the file that was asked for."""
    path = os.environ.get(EVENTS)
    with Live(console) as live:
        if path is None:
            yield [live]
            return
        with closing(JsonLines(Path(path))) as log:
            yield [live, Paced(log)]


class Live:
    """Listens to a run's events. Use it in a `with`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._verb = "train"
        self._rate = self._loss = 0.0
        self._memory = self._score = ""
        self._budget = Bytes(0)

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Draw it."""
        if isinstance(event, Scanned):
            self._move(_("looking at the data"), event.done, event.total)
        elif isinstance(event, TileDone | PartDone):
            self._move(_DOING.get(self._verb, _("predicting")), event.done, event.total)
        elif isinstance(event, RunStarted):
            self._verb, self._budget = event.verb, Bytes(event.budget_bytes["ram"])
            if event.verb == "train":
                self._move(_("training"), event.step, event.total_steps)
        elif isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, MemoryRead):
            self._memory = f"{Bytes(event.ram)} / {self._budget}"
        elif isinstance(event, Validated):
            named = [(k, v) for k, v in event.metrics.items() if v is not None]
            if named:
                self._score = f"{named[0][0]} {named[0][1]:.3f}"
        elif isinstance(event, Warned):
            self._console.print(f"! {event.message}", style="yellow", markup=False, soft_wrap=True)

    def tick(self, done: int, total: int) -> None:
        """Reading headers went this far."""
        self._move(_("reading headers"), done, total)

    def _step(self, event: StepDone) -> None:
        now = event.samples / max(event.step_seconds, 1e-9)
        self._rate = now if not self._rate else 0.9 * self._rate + 0.1 * now
        self._loss = event.loss if not self._loss else 0.9 * self._loss + 0.1 * event.loss
        note = [
            _("loss {loss:.3f}").format(loss=self._loss),
            _("{rate:.0f} samples/s").format(rate=self._rate),
            self._score,
            self._memory,
        ]
        bar = self._bars.get(_("training"))
        if bar is not None:
            self._progress.update(bar, completed=event.step, note=" · ".join(filter(None, note)))

    def _move(self, name: str, done: int, total: int) -> None:
        if name not in self._bars:
            for bar in self._bars.values():
                self._progress.update(bar, visible=False)
            self._bars[name] = self._progress.add_task(name, total=total, note="")
        self._progress.update(self._bars[name], completed=done, total=total)
