"""What a training run can do to hold less, cheapest first: the rungs of its governor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from caudal.core.errors import OutOfMemory
from caudal.core.events import Sink
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import allocator, vram
from caudal.memory.governor import Governor, Rung
from caudal.memory.meters import Watch
from caudal.memory.plan import MemoryPlan, Pool
from caudal.training.loop import Loop
from caudal.training.step import Stepper

_TRIM_AGAIN_SECONDS = 20.0  # what is given back is asked for again, page by page


def rungs_of(loop: Loop, budget: Bytes, charged: Callable[[], Bytes], pool: Pool = "ram") -> list[Rung]:
    """For a run of `loop` that holds `charged()` bytes of a pool and may hold `budget`."""
    trim = (
        _trimming(_("give free heap back"), allocator.trim)
        if pool == "ram"
        else _trimming(_("give free device memory back"), vram.trim)
    )
    return [
        trim,
        _halving(loop.stepper),
        Rung(_("checkpoint and stop"), lambda: _stop(loop, budget, charged(), pool)),
    ]


@contextmanager
def governed(
    loop: Loop, memory: MemoryPlan, watch: Watch, tell: Sink, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Keep a run of `loop` inside each budget of its plan while it goes on inside the `with`."""
    governors: list[tuple[Governor, Callable[[], Bytes]]] = []

    def govern(pool: Pool, budget: Bytes, charged: Callable[[], Bytes]) -> None:
        rungs = rungs_of(loop, budget, charged, pool)
        governor = Governor(budget, rungs, tell, pool, clock, memory.predicted(pool))
        governors.append((governor, charged))

    govern("ram", memory.ram, watch.now)
    if memory.vram:
        govern("vram", memory.vram, lambda: vram.charged() or Bytes(0))

    def hear(charged: Bytes) -> None:
        for number, (governor, read) in enumerate(governors):
            governor(read() if number else charged)  # the first is of what was just read

    watch.governor = hear
    try:
        yield
    finally:
        watch.governor = None
        for governor, read in governors:
            governor.close(read())


def _trimming(name: str, give_back: Callable[[], object]) -> Rung:
    last = [-_TRIM_AGAIN_SECONDS]

    def trim() -> bool:
        now = time.monotonic()
        if now - last[0] < _TRIM_AGAIN_SECONDS:
            return False
        last[0] = now
        give_back()
        return True

    return Rung(name, trim)


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


def _stop(loop: Loop, budget: Bytes, charged: Bytes, pool: Pool) -> bool:
    """The last rung: only above the budget, and once."""
    if charged <= budget:
        return False
    error = OutOfMemory(
        _("The run held {charged}, above its budget of {budget}, and nothing smaller is left.").format(
            charged=charged, budget=budget
        ),
        _("Run the same command again to go on from the checkpoint, with a larger --{pool}.").format(
            pool=pool
        ),
        charged=int(charged),
        budget=int(budget),
    )
    return loop.stop.ask(error)
