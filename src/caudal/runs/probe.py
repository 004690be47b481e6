"""Asks a throw-away child process what a few real steps of a run take; `probe_child` is that process.

It is a child so that what it allocates is gone afterwards: an allocator that was stretched once stays
stretched; and so that the kernel, if it must end somebody, ends nobody else.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from caudal.core.config import Frozen
from caudal.core.errors import DoesNotFit, from_record
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory.cost import ProbeResult
from caudal.memory.plan import Pool
from caudal.memory.process import first_to_go
from caudal.runs.refusal import LEAST_RAM, refuse_loaded
from caudal.runs.spec import RunSpec

TRAINING = {"measures": "training"}
"""What the child says before its first step."""
COMPLETE = {"measures": "nothing more"}
"""What the child says last, where nothing ended it."""


class ProbeRequest(Frozen):
    """What to measure: a spec, and what `Work.tell` says of its data.

    Micro-batches in growing order: the `exact` ones, and before them the smaller `inexact` ones where it
    looks as if no exact one would fit. `thrifty`: what takes least comes first, and all sizes are tried.
    `beside` and `least_arena` are held by the run, and not here: by index and watcher, and for samples.
    """

    spec: RunSpec
    told: dict[str, Any]
    exact: tuple[int, ...]
    inexact: tuple[int, ...]
    ram: Bytes
    threads: int
    thrifty: bool = False
    beside: Bytes = Bytes(0)
    least_arena: Bytes = Bytes(0)


def ask(request: ProbeRequest) -> ProbeResult:
    """Run the probe in a child process and wait for it.

    What it measured before the kernel ended it counts. Where that was no step of an exact micro-batch,
    another one begins with what takes least, and what both measured is put together.

    Raises:
        DoesNotFit: no child measured a step, or the budget is below what is held before one is asked.
        CaudalError: as the child found.
    """
    if request.ram < LEAST_RAM:
        raise _too_small(request.ram, LEAST_RAM)
    refuse_loaded(request.ram, LEAST_RAM, request.beside, request.least_arena, [])
    told = _run(request)
    if not request.thrifty and _ended_early(told, request.exact):
        told += _run(request.model_copy(update={"thrifty": True}))
    answer = told[-1] if told else {}
    if "error" in answer:
        raise from_record(answer["error"])
    if not (found := _found(told)):
        raise overflowed(request.ram, answer.get("measures", ""))
    steps = {(step.micro_batch, step.heap, step.recompute): step for one in found for step in one.steps}
    return found[-1].model_copy(update={"steps": tuple(steps.values())})


def _ended_early(told: list[dict[str, Any]], exact: tuple[int, ...]) -> bool:
    """Whether a child was ended while it measured steps, before one of an exact micro-batch."""
    if TRAINING not in told or COMPLETE in told or "error" in told[-1]:
        return False
    return not any(step.micro_batch in exact for one in _found(told) for step in one.steps)


def _found(told: list[dict[str, Any]]) -> list[ProbeResult]:
    return [ProbeResult.model_validate(one["found"]) for one in told if "found" in one]


def _run(request: ProbeRequest) -> list[dict[str, Any]]:
    """All that a child said, up to its end or to where the kernel ended it."""
    with subprocess.Popen(
        [sys.executable, "-m", "caudal.runs.probe_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        first_to_go(child.pid)
        output, errors = child.communicate(request.model_dump_json())
    assert child.returncode in (0, -signal.SIGKILL), f"the probe failed:\n{errors}"
    return [json.loads(text) for text in output.splitlines()]


def _too_small(budget: Bytes, least: Bytes) -> DoesNotFit:
    return DoesNotFit(
        _("The budget of {budget} is less than the interpreter and its libraries take: {least}.").format(
            budget=budget, least=least
        ),
        _("Give --ram 512MiB or more."),
        pool="ram",
        needed=int(least),
        budget=int(budget),
    )


def overflowed(budget: Bytes, stage: str, pool: Pool = "ram") -> DoesNotFit:
    """The probe was ended for want of memory while it measured `stage`: by the kernel, or by the device."""
    stages = {
        "loading": _("loading the model"),
        "reading": _("reading its data"),
        "scoring": _("scoring its largest samples"),
        "training": _("a training step of the smallest micro-batch"),
    }
    return DoesNotFit(
        _("The budget of {budget} does not hold this run: its measurement was ended at {stage}.").format(
            budget=budget, stage=stages.get(stage) or _("loading its libraries")
        ),
        _(
            "Give more with --{pool}, or a smaller model, smaller samples or a smaller batch in the spec."
        ).format(pool=pool),
        pool=pool,
        needed=int(budget) + 1,
        budget=int(budget),
    )
