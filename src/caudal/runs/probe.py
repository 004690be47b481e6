"""A throw-away child process that runs a few real steps and says what they took.

`python -m caudal.runs.probe` reads a request as JSON from standard input and writes the answer as the
last line of its standard output. It is a child so that what it allocates is gone afterwards: an
allocator that was stretched once stays stretched.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caudal.core.config import Frozen
from caudal.core.errors import CaudalError, DeviceMissing, DoesNotFit, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import allocator, vram
from caudal.memory.cost import ProbeResult, Step, line
from caudal.memory.levers.checkpointing import Checkpointing
from caudal.memory.levers.heap import Heap
from caudal.memory.levers.threads import Threads
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.memory.process import first_to_go
from caudal.runs.machine import settle
from caudal.runs.refusal import LEAST_RAM, refuse_at_once, static_bytes
from caudal.runs.spec import RunSpec
from caudal.runs.work import WORKS
from caudal.runs.work.base import Work

if TYPE_CHECKING:
    from caudal.runs.work.base import RehearsedBatch

_COMFORT = 0.7  # of the room for a step: past it, what takes less and longer is measured, too
_NO_TIME = 1e-9  # it was measured, and is in the time of a step
_WORTH_BRINGING = 0.05  # of the budget: an optimizer state below it stays where it is
_LONG_SECONDS = 5.0  # of one size: steps as long as that show a heap's slack sooner
_AT_LEAST = 3  # steps

_ERRORS: dict[str, type[CaudalError]] = {e.code: e for e in (DeviceMissing, DoesNotFit, UsageError)}


class ProbeRequest(Frozen):
    """What to measure: a spec, and what `Work.tell` says of its data.

    Micro-batches in growing order: the `exact` ones, and before them the smaller `inexact` ones where it
    looks as if no exact one would fit.
    """

    spec: RunSpec
    told: dict[str, Any]
    exact: tuple[int, ...]
    inexact: tuple[int, ...]
    ram: Bytes
    threads: int


def ask(request: ProbeRequest) -> ProbeResult:
    """Run the probe in a child process and wait for it.

    Raises:
        DoesNotFit: the child was killed, or the budget is below what the interpreter takes.
        DeviceMissing, UsageError: as the child found.
    """
    if request.ram < LEAST_RAM:
        raise _too_small(request.ram, LEAST_RAM)
    with subprocess.Popen(
        [sys.executable, "-m", "caudal.runs.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        first_to_go(child.pid)
        output, errors = child.communicate(request.model_dump_json())
    if child.returncode == -signal.SIGKILL:
        raise _overflowed(request.ram, output)
    assert child.returncode == 0, f"the probe failed:\n{errors}"
    answer = json.loads(output.splitlines()[-1])
    if "error" in answer:
        error = answer["error"]
        raise _ERRORS[error["code"]](error["message"], error["hint"], **error["facts"])
    return ProbeResult.model_validate(answer)


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


def _overflowed(budget: Bytes, output: str) -> DoesNotFit:
    """The kernel ended the probe while it measured what its last line says."""
    told = [json.loads(text)["measures"] for text in output.splitlines()]
    stages = {
        "reading": _("reading its data"),
        "scoring": _("scoring its largest samples"),
        "training": _("a training step of the smallest micro-batch"),
    }
    return DoesNotFit(
        _("The budget of {budget} does not hold this run: its measurement was ended at {stage}.").format(
            budget=budget, stage=stages[told[-1]] if told else _("loading its libraries")
        ),
        _("Give more with --ram, or a smaller model, smaller samples or a smaller batch in the spec."),
        pool="ram",
        needed=int(budget) + 1,
        budget=int(budget),
    )


def _say(stage: str) -> None:
    """Tell the parent, which cannot ask a process that was killed."""
    print(json.dumps({"measures": stage}), flush=True)


def main() -> None:
    """The child: measure, and write the answer."""
    settle()
    request = ProbeRequest.model_validate_json(sys.stdin.read())
    try:
        answer: dict[str, Any] = measure(request).model_dump(mode="json")
    except CaudalError as error:
        facts = {key: value for key, value in error.facts.items() if isinstance(value, str | int | dict)}
        answer = {"error": {"code": error.code, "message": error.message, "hint": error.hint, "facts": facts}}
    print(json.dumps(answer))


def measure(request: ProbeRequest) -> ProbeResult:
    """Measure in this process. Imports what a run imports, so that its base is the run's base."""
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
    _say("reading")
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
    _say("scoring")
    # Inference first: what it leaves in the allocator is there in a run too, which scores as it trains.
    forwards = tuple(rehearsal.forwards(model, task, precision, meter))
    allocator.trim()
    scored = rehearsal.scoring(model, task, precision, meter)
    allocator.trim()
    _say("training")
    steps: list[Step] = []
    held = sum(static.values()) - (static["optimizer"] if scratch else 0)
    room = request.ram - imported - held
    sizes = request.exact
    if rehearsal.guess(forwards, min(request.exact)) > room:
        sizes = (*request.inexact, *request.exact)
    elsewhere = (_NO_TIME, at_once_bytes(list(model.parameters()))) if scratch else None
    for heap, recompute in _step_levers(model):
        if any(s.ram + s.vram <= _COMFORT * room for s in steps if s.micro_batch in request.exact):
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
        steps += measured
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
