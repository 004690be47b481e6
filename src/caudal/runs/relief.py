"""What a training run can do to hold less, cheapest first: the rungs of its governor."""

from __future__ import annotations

import time
from collections.abc import Callable

from caudal.core.errors import OutOfMemory
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import allocator
from caudal.memory.governor import Rung
from caudal.training.loop import Loop
from caudal.training.step import Stepper

_TRIM_AGAIN_SECONDS = 20.0  # what is given back is asked for again, page by page


def rungs_of(loop: Loop, budget: Bytes, charged: Callable[[], Bytes]) -> list[Rung]:
    """For a run of `loop` that holds `charged()` bytes and may hold `budget`."""
    return [
        _trimming(),
        _halving(loop.stepper),
        Rung(_("checkpoint and stop"), lambda: _stop(loop, budget, charged())),
    ]


def _trimming() -> Rung:
    last = [-_TRIM_AGAIN_SECONDS]

    def trim() -> bool:
        now = time.monotonic()
        if now - last[0] < _TRIM_AGAIN_SECONDS:
            return False
        last[0] = now
        allocator.trim()
        return True

    return Rung(_("give free heap back"), trim)


def _halving(stepper: Stepper) -> Rung:
    halvings: list[tuple[int, int]] = []

    def halve() -> bool:
        smaller = stepper.next_smaller()
        if smaller is None:
            return False
        halvings.append((stepper.micro_batch, smaller))
        stepper.micro_batch = smaller
        return True

    def undo() -> bool:
        if not halvings:
            return False
        before, after = halvings.pop()
        if stepper.micro_batch != after:  # a step has run out of memory since, and knows better
            return False
        stepper.micro_batch = before
        return True

    return Rung(_("smaller micro-batch, same step"), halve, undo)


def _stop(loop: Loop, budget: Bytes, charged: Bytes) -> bool:
    """The last rung: only above the budget, and once."""
    if charged <= budget:
        return False
    error = OutOfMemory(
        _("The run held {charged}, above its budget of {budget}, and nothing smaller is left.").format(
            charged=charged, budget=budget
        ),
        _("Run the same command again to go on from the checkpoint, with a larger --ram."),
        charged=int(charged),
        budget=int(budget),
    )
    return loop.stop.ask(error)
