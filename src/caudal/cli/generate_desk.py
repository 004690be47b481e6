"""What stands behind the page of generation: controls in, pictures and words out. Knows no page library.

One picture is made at a time; whoever asks meanwhile waits. Cancelling is heard between two steps.
"""

from __future__ import annotations

import html
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from caudal.core.errors import CaudalError, UsageError
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.runs.generation.plan import GenerationPlan
from caudal.runs.generation.studio import Studio, Wish
from caudal.runs.verbs.generate import unmarked, write
from caudal.tasks.generation.request import GenerationRequest, lcm

_SHOWN = 24  # pictures of the history
_PLAIN = ("prompt", "negative", "style", "scheduler", "batch", "precision", "face_region")
_WHOLE = ("steps", "seed", "count")
_REAL = ("guidance", "identity_strength", "adapter_strength", "identity_end")


@dataclass
class Controls:
    """What the page's controls say; names are those of the request where it has them.

    A field for a number that was emptied is `None`. What the page has no control for (`batch`, `precision`)
    stays as it was at the start.
    """

    face: str | None = None
    pose: str | None = None
    prompt: str = ""
    negative: str = ""
    style: str = "none"
    lcm: bool = False
    width: int | None = 1024
    height: int | None = 1024
    like_pose: bool = True
    steps: int | None = 30
    guidance: float | None = 5.0
    seed: int | None = 0
    another_seed: bool = True
    count: int | None = 1
    batch: int = 1
    precision: str = "auto"
    identity_strength: float | None = 0.8
    adapter_strength: float | None = 0.8
    identity_end: float | None = 1.0
    face_region: bool = False
    scheduler: str = "default"
    control_strengths: dict[str, float] = field(default_factory=dict)
    control_pictures: dict[str, str | None] = field(default_factory=dict)

    def wish(self) -> Wish:
        """What is asked for.

        Raises:
            UsageError: no face, an empty number, or a value out of range.
        """
        if not self.face:
            raise UsageError(_("No face was given."), _("Choose a picture of a face."))
        values: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        values |= {name: _number(name, getattr(self, name)) for name in _REAL}
        sides = () if self.like_pose else ("width", "height")
        values |= {name: int(_number(name, getattr(self, name))) for name in (*_WHOLE, *sides)}
        values["control_strengths"] = {
            kind: _number(kind, strength) for kind, strength in self.control_strengths.items()
        }
        request = GenerationRequest.make(values)
        shown = {kind: path for kind, path in self.control_pictures.items() if path}
        return Wish(lcm(request) if self.lcm else request, (self.face,), self.pose or None, shown)


def _number(name: str, value: Any) -> float:
    if value is None or not math.isfinite(value):
        raise UsageError(
            _("The field “{name}” is empty.").format(name=name.replace("_", " ")), _("Write a number there.")
        )
    return float(value)


@dataclass
class Desk:
    """A studio with its pictures of this sitting, in `out`."""

    studio: Studio
    out: Path
    history: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop, self._busy = threading.Event(), threading.Lock()
        self._plan: GenerationPlan | None = None
        self._step = (0, 0)

    def predicted(self, controls: Controls) -> str:
        """What the button would take, as a piece of a page; an error in words where nothing fits."""
        if controls.another_seed:
            controls = replace(controls, seed=0)  # whatever the field says, it is not what will be taken
        try:
            plan = self.studio.plan(controls.wish())
        except CaudalError as error:
            return _faulty(error)
        rows = [
            _bar(pool, plan.memory.predicted_bytes()[pool], int(budget))
            for pool, budget in _budgets(plan)
            if budget
        ]
        why = "".join(
            f"<li><b>{html.escape(f'{lever.name}: {lever.value}')}</b> — {html.escape(lever.why)}</li>"
            for lever in plan.memory.levers
        )
        warnings = (*plan.warnings, *unmarked(plan))
        warned = "".join(f"<li>{html.escape(text)}</li>" for text in warnings)
        size = f"{plan.width}×{plan.height}"
        title = _("predicted peak, {size} pixels").format(size=size)
        return f"<h4>{html.escape(title)}</h4>{''.join(rows)}<ul>{why}{warned}</ul>"

    def make(self, controls: Controls) -> Iterator[tuple[list[tuple[str, str]], str, int | None]]:
        """Make pictures; gives history, words and seed after each."""
        if controls.another_seed:
            controls = replace(controls, seed=time.time_ns() % 2**31)
        seed, began, count = controls.seed, time.monotonic(), 0
        if not self._busy.acquire(blocking=False):
            yield self.history, _("A picture is being made; wait for it or cancel it."), seed
            return
        try:
            self._stop.clear()
            wish = controls.wish()
            self._plan = plan = self.studio.plan(wish)
            self.out.mkdir(parents=True, exist_ok=True)
            for finished in self.studio.make(wish, plan, self._tick, self._stop.is_set):
                path = self.out / f"{time.strftime('%Y%m%d-%H%M%S')}-{finished.seed}.png"
                write(path, finished.x_HWC, finished.facts, True, True)
                self.history = [(str(path), f"{finished.seed}"), *self.history][:_SHOWN]
                count += 1
                yield self.history, self._ended(count, began), seed
        except CaudalError as error:
            yield self.history, f"{error.message} {error.hint}".strip(), seed
        except OSError as error:
            said = _("{path} cannot be written: {why}.").format(path=self.out, why=error.strerror or error)
            yield self.history, said, seed
        finally:
            self._step = (0, 0)
            self._busy.release()

    def cancel(self) -> str:
        """Ask the picture that is being made to stop after its step."""
        if not self._busy.locked():
            return _("Nothing is being made.")
        self._stop.set()
        return _("It stops after this step.")

    def bars(self) -> str:
        """What is held now, by pool and holder, against the budget; and how far the steps are."""
        done, total = self._step
        parts = [_bar(_("steps"), done, total, plain=True)] if total else []
        budgets: dict[str, Bytes] = dict(_budgets(self._plan)) if self._plan else {}
        for pool, held in self.studio.held().items():
            budget = int(budgets.get(pool) or 0)
            parts.append(_bar(pool, sum(held.values()), budget))
            parts += [_bar(f"· {name}", nbytes, budget) for name, nbytes in held.items() if nbytes >= MIB]
        if self._busy.locked() and self.studio.warnings:
            parts.append(f"<p>{html.escape(self.studio.warnings[-1])}</p>")
        return "".join(parts)

    def close(self) -> None:
        """Stop, and give every weight back."""
        self._stop.set()
        with self._busy:
            self.studio.close()

    def _tick(self, done: int, total: int) -> None:
        self._step = (done, total)

    def _ended(self, count: int, began: float) -> str:
        said = _("{count} made in {seconds:.1f} s.").format(count=count, seconds=time.monotonic() - began)
        small = unmarked(self._plan) if self._plan else []
        return " ".join([said, *self.studio.warnings, *small])


def _budgets(plan: GenerationPlan) -> list[tuple[str, Bytes]]:
    return [("ram", plan.memory.ram), ("vram", plan.memory.vram or Bytes(0))]


def _bar(name: str, value: int, most: int, plain: bool = False) -> str:
    share = min(1.0, value / most) if most else 0.0
    colour = "#c0392b" if most and value > most else "#2e7d5b"
    words = f"{value} / {most}" if plain else f"{Bytes(value)}" + (f" / {Bytes(most)}" if most else "")
    return (
        f'<div class="caudal-bar"><span>{html.escape(name)}</span> <span>{html.escape(words)}</span>'
        f'<div style="background:#8884;height:8px;border-radius:4px">'
        f'<div style="background:{colour};height:8px;border-radius:4px;width:{share:.1%}"></div></div></div>'
    )


def _faulty(error: CaudalError) -> str:
    return f"<p><b>{html.escape(error.message)}</b><br>{html.escape(error.hint)}</p>"
