"""The process that a probe asks: `python -m caudal.runs.probe_child`, a request as JSON on standard input.

It runs a few real steps and says on standard output, line by line, what it measures and what it has found so
far. Who ended by itself says so, or its error, in the last line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from caudal.core.errors import CaudalError, OutOfMemory, to_record
from caudal.core.units import Bytes
from caudal.memory import allocator, vram
from caudal.memory.cost import ProbeResult, Step
from caudal.memory.levers.threads import Threads
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
from caudal.runs.probe import COMPLETE, TRAINING, ProbeRequest, overflowed
from caudal.runs.refusal import refuse_at_once, refuse_loaded
from caudal.runs.work import WORKS
from caudal.runs.work.base import Work

_FOR_SCORING = 2 / 3  # of what is left beside the model; where room is short, steps take more
_SCORINGS = 2  # how far decoding gets ahead, and how the heap is packed, differ from time to time


def _say(what: dict[str, Any]) -> None:
    """Tell the parent, which cannot ask a process that was killed."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """The child: read what is asked, and answer."""
    settle()
    answer(ProbeRequest.model_validate_json(sys.stdin.read()))


def answer(request: ProbeRequest) -> None:
    """Measure, and say so, or what went wrong."""
    try:
        measure(request)
    except OutOfMemory:
        return  # as if the kernel had ended this process: what was said so far counts
    except CaudalError as error:
        _say({"error": to_record(error)})
    except (MemoryError, RuntimeError) as error:
        from caudal.training.retry import ran_out

        if not ran_out(error):
            raise


def measure(request: ProbeRequest) -> None:
    """Measure in this process, and tell what is known after each step, in the end with all of it.

    Imports what a run imports, so that its base is the run's base.
    """
    import torch

    family: type[Work] = WORKS.get(request.spec.task)
    rehearsal = family.rehearse(request.spec, request.told)
    held_always = refuse_at_once(request.spec, rehearsal, request.ram)
    import rich.progress  # noqa: F401 - a run draws with it

    from caudal.runs import assemble
    from caudal.runs.probe_subject import COMFORT, Subject
    from caudal.runs.verbs import train  # noqa: F401 - a run has all that it loads

    rehearsal.load()
    device = vram.choose(request.spec.device)
    free = vram.devices()[vram.card()].free if device == "cuda" else Bytes(0)
    card = vram.allowed_on(device, request.spec.vram)
    torch.set_num_threads(request.threads)
    meter = PeakMeter()
    _say({"measures": "reading"})
    # The first reading loads libraries and tables, which a run has before it trains.
    rehearsal.decoding(meter, 1)
    allocator.trim()
    imported = charged_bytes()
    refuse_loaded(request.ram, imported, request.beside, request.least_arena, held_always)
    with _naming_the_card(card, "loading"):
        subject = Subject.make(request, rehearsal, device, imported, card)
    decodings = tuple(
        (threads, rehearsal.decoding(meter, threads))
        for threads in Threads(request.spec.data.threads).positions()[:2]
    )
    allocator.trim()
    before_scoring = charged_bytes()
    _say({"measures": "scoring"})
    # Inference first: what it leaves in the allocator is there in a run too, which scores as it trains.
    scored, scored_on_card = Bytes(0), Bytes(0)
    with _naming_the_card(card, "scoring"):
        most = Bytes(_FOR_SCORING * max(0.0, subject.at_hand(subject.room(request.ram)).ram))
        forwards = tuple(rehearsal.forwards(subject.model, subject.task, subject.precision, most))
        for number in range(_SCORINGS):
            allocator.trim()
            vram.trim()
            vram.reset_peak()
            with allocator.apart(number == 0):
                again = rehearsal.scoring(subject.model, subject.task, subject.precision, meter)
            scored = max(scored, again)
            if card is not None:
                on_card = vram.peak_since_reset() or 0
                scored_on_card = Bytes(max(scored_on_card, on_card - subject.held))
    allocator.trim()
    subject.left_by_scoring = max(0, charged_bytes() - before_scoring)
    _say(TRAINING)
    room = subject.room(request.ram)
    sizes = request.exact
    if request.thrifty or rehearsal.guess(forwards, min(request.exact)) > room.where_it_computes:
        sizes = (*request.inexact, *request.exact)
    steps: list[Step] = []
    for heap, recompute in subject.step_levers()[:: -1 if request.thrifty else 1]:
        comfortable = any(room.holds(s.ram, s.vram, COMFORT) for s in steps if s.micro_batch in request.exact)
        if comfortable and not request.thrifty:
            break  # nothing more is wanted
        if steps:
            room = room.and_more(subject.bring_elsewhere(request.ram))  # a plan may put it there
        assemble.make_thrifty(subject.model, heap, recompute)
        for step in subject.steps(sizes, subject.at_hand(room), meter, min(request.exact)):
            steps.append(step.model_copy(update={"heap": heap, "recompute": recompute}))
            found = ProbeResult(
                device=device,
                imported=imported,
                static=subject.static,
                steps=tuple(steps),
                forwards=forwards,
                decodings=decodings,
                scoring=scored,
                scoring_left=Bytes(subject.left_by_scoring),
                scoring_vram=scored_on_card,
                elsewhere_seconds=subject.elsewhere[0],
                elsewhere_bytes=subject.elsewhere[1],
                precision=subject.precision.name,
                headline=subject.task.headline,
                device_free=free,
            )
            _say({"found": found.model_dump(mode="json")})
    if card is not None and not steps and request.thrifty:
        raise overflowed(card, "training", "vram")
    _say(COMPLETE)


@contextmanager
def _naming_the_card(budget: Bytes | None, stage: str) -> Iterator[None]:
    """Let what finds no room on the card at `stage` say so; without a card (`None`) nothing is changed.

    Raises:
        DoesNotFit: a tensor found no room on the card.
    """
    try:
        yield
    except (OutOfMemory, MemoryError, RuntimeError) as error:
        from caudal.training.retry import ran_out

        if budget is None or not (isinstance(error, OutOfMemory) or ran_out(error)):
            raise
        raise overflowed(budget, stage, "vram") from None


if __name__ == "__main__":
    main()
