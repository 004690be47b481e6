"""The process that a probe asks: `python -m caudal.runs.probe_child`, a request as JSON on standard input.

It runs a few real steps and says on standard output, line by line, what it measures and what it has found so
far; the last line holds all of it, or the error.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caudal.core.errors import CaudalError
from caudal.core.units import Bytes
from caudal.memory import allocator, vram
from caudal.memory.cost import ProbeResult, Step, line
from caudal.memory.levers.checkpointing import Checkpointing
from caudal.memory.levers.heap import Heap
from caudal.memory.levers.threads import Threads
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
from caudal.runs.probe import TRAINING, ProbeRequest
from caudal.runs.refusal import refuse_at_once, static_bytes
from caudal.runs.work import WORKS
from caudal.runs.work.base import Work

if TYPE_CHECKING:
    from caudal.runs.work.base import RehearsedBatch

_COMFORT = 0.7  # of the room for a step: past it, what takes less and longer is measured, too
_NO_TIME = 1e-9  # it was measured, and is in the time of a step
_WORTH_BRINGING = 0.05  # of the budget: an optimizer state below it stays where it is
_LONG_SECONDS = 10.0  # of one size: steps as long as that show a heap's slack sooner
_AT_LEAST = 6  # steps


def _say(what: dict[str, Any]) -> None:
    """Tell the parent, which cannot ask a process that was killed."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """The child: measure, and write the answer."""
    settle()
    request = ProbeRequest.model_validate_json(sys.stdin.read())
    try:
        measure(request)
    except CaudalError as error:
        facts = {key: value for key, value in error.facts.items() if isinstance(value, str | int | dict)}
        told = {"code": error.code, "message": error.message, "hint": error.hint, "facts": facts}
        _say({"error": told})


def measure(request: ProbeRequest) -> None:
    """Measure in this process, and tell what is known after each step, in the end with all of it.

    Imports what a run imports, so that its base is the run's base.
    """
    import torch

    family: type[Work] = WORKS.get(request.spec.task)
    rehearsal = family.rehearse(request.spec, request.told)
    refuse_at_once(request.spec, rehearsal, request.ram)
    import rich.progress  # noqa: F401 - a run draws with it

    from caudal.models.anomaly_map import Fitted
    from caudal.runs import assemble, tensorboard  # noqa: F401 - a run has them all
    from caudal.training import loop  # noqa: F401
    from caudal.training.average import Average
    from caudal.training.fit import Taker
    from caudal.training.state_elsewhere import at_once_bytes
    from caudal.training.step import equal_parts

    rehearsal.load()
    device = vram.choose(request.spec.device)
    free = vram.devices()[0].free if device == "cuda" else Bytes(0)
    torch.set_num_threads(request.threads)
    meter = PeakMeter()
    _say({"measures": "reading"})
    # The first reading loads libraries and tables, which a run has before it trains.
    rehearsal.decoding(meter, 1)
    allocator.trim()
    imported = charged_bytes()
    task = rehearsal.make_task()
    model = assemble.make_model(request.spec, rehearsal.inputs, rehearsal.outputs, device, rehearsal.config)
    prepare, parts = rehearsal.prepare(device), rehearsal.parts
    asked = request.spec.training.precision
    precision = assemble.choose_precision(model, device, asked, parts is not None)
    stepper: Any
    scratch: Path | None = None
    if isinstance(model, Fitted):
        stepper, average = Taker(model, prepare, parts or equal_parts, 1), Average(model, 0)
    else:
        alone = sum(static_bytes(model, None if request.spec.training.average else model).values())
        # What would not fit beside the libraries is not tried with all of the optimizer's state here.
        scratch = Path(tempfile.gettempdir()) if imported + alone > _COMFORT * request.ram else None
        stepper, average = assemble.make_stepper(
            request.spec, task, model, prepare, parts, precision, 1, scratch
        )
    static = static_bytes(model, average.model)
    decodings = tuple(
        (threads, rehearsal.decoding(meter, threads))
        for threads in Threads(request.spec.data.threads).positions()[:2]
    )
    allocator.trim()
    _say({"measures": "scoring"})
    # Inference first: what it leaves in the allocator is there in a run too, which scores as it trains.
    forwards = tuple(rehearsal.forwards(model, task, precision, meter))
    allocator.trim()
    scored = rehearsal.scoring(model, task, precision, meter)
    allocator.trim()
    _say(TRAINING)
    steps: list[Step] = []
    held = sum(static.values()) - (static["optimizer"] if scratch else 0)
    room = request.ram - imported - held
    sizes = request.exact
    if request.thrifty or rehearsal.guess(forwards, min(request.exact)) > room:
        sizes = (*request.inexact, *request.exact)
    elsewhere = (_NO_TIME, at_once_bytes(list(model.parameters()))) if scratch else None

    def found() -> ProbeResult:
        return ProbeResult(
            device=device,
            imported=imported,
            static=static,
            steps=tuple(steps),
            forwards=forwards,
            decodings=decodings,
            scoring=scored,
            elsewhere_seconds=elsewhere[0] if elsewhere else 0.0,
            elsewhere_bytes=elsewhere[1] if elsewhere else Bytes(0),
            precision=precision.name,
            headline=task.headline,
            device_free=free,
        )

    for heap, recompute in _step_levers(model)[:: -1 if request.thrifty else 1]:
        comfortable = any(s.ram + s.vram <= _COMFORT * room for s in steps if s.micro_batch in request.exact)
        if comfortable and not request.thrifty:
            break  # nothing more is wanted
        if steps and elsewhere is None and not isinstance(model, Fitted):
            elsewhere = _measure_elsewhere(stepper, static, request.ram)
            room += static["optimizer"] if elsewhere[0] else 0  # a plan may put it there
        assemble.make_thrifty(model, heap, recompute)
        measured: list[Step] = []
        for size in sizes:
            if _would_not_fit(measured, size, room):
                break
            stepper.micro_batch = size
            allocator.trim()  # a run begins with this size, and not with what smaller ones left
            # Where samples differ, only a whole batch is cut as batches are.
            count = max(request.exact) if rehearsal.parts else min(2 * size, max(request.exact))
            drawn = (rehearsal.batch(count, number) for number in range(rehearsal.steps))
            step = _measure_step(stepper, average, drawn, size, meter, imported, held, device)
            measured.append(step.model_copy(update={"heap": heap, "recompute": recompute}))
            steps.append(measured[-1])
            _say({"found": found().model_dump(mode="json")})


def _step_levers(model: Any) -> list[tuple[int, int]]:
    """Positions of `heap` and `checkpointing` that are worth a measurement, the dearest in memory first."""
    levels = Checkpointing(int(getattr(model, "recompute_levels", 0))).positions()
    return [(Heap.KEPT, 0), *((Heap.GIVEN_BACK, recompute) for recompute in levels)]


def _measure_elsewhere(stepper: Any, static: dict[str, int], ram: Bytes) -> tuple[float, Bytes]:
    """Seconds of an update whose state lies elsewhere, and what it holds at a time; 0 where little is to win.

    The file lies where Python keeps what is temporary; a run's lies in its folder.
    """
    from caudal.training.adamw import AdamW
    from caudal.training.state_elsewhere import at_once_bytes

    weights = list(stepper.model.parameters())
    if static["optimizer"] < _WORTH_BRINGING * ram:
        return 0.0, Bytes(0)
    optimizer = AdamW(weights, 0.0, 0.0, elsewhere=Path(tempfile.gettempdir()))
    seconds = []
    for weight in weights:
        weight.grad = weight.new_zeros(weight.shape)
    for _time in range(2):
        began = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    stepper.optimizer.zero_grad()
    return max(seconds[-1], _NO_TIME), at_once_bytes(weights)


def _would_not_fit(steps: list[Step], size: int, room: float) -> bool:
    """Whether a step passes the room; one that is known alone, by as much as it would if all of it grew."""
    if len(steps) < 2:
        return bool(steps) and steps[0].ram > room
    return line([(step.micro_batch, step.ram) for step in steps], size) > room


def _measure_step(
    stepper: Any,
    average: Any,
    batches: Iterable[RehearsedBatch],
    size: int,
    meter: PeakMeter,
    imported: Bytes,
    held: int,
    device: str,
) -> Step:
    seconds: list[float] = []
    peak = count = 0
    for number, batch in enumerate(batches):
        meter.reset()
        began, count = time.perf_counter(), batch.size
        stepper.run(batch, 1e-4)
        average.update(stepper.model, number)
        seconds.append(time.perf_counter() - began)
        peak = max(peak, meter.peak() - batch.nbytes)
        if sum(seconds) > _LONG_SECONDS and len(seconds) >= _AT_LEAST:
            break
    on_device = vram.peak() if device == "cuda" else None
    return Step(
        micro_batch=size,
        ram=Bytes(max(0, peak - imported - (held if device == "cpu" else 0))),
        vram=Bytes(max(0, (on_device or held) - held)),
        # The first of a size makes the kernels for it.
        seconds_per_sample=min(seconds[1:]) / count,
    )


if __name__ == "__main__":
    main()
