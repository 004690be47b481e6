"""A throw-away child process that runs a few real steps and says what they took.

`python -m caudal.runs.probe` reads a request as JSON from standard input and writes the answer as the
last line of its standard output. It is a child so that what it allocates is gone afterwards: an
allocator that was stretched once stays stretched.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caudal.core.config import Frozen
from caudal.core.errors import CaudalError, DeviceMissing, DoesNotFit, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import allocator, vram
from caudal.memory.cost import ProbeResult, Step, line
from caudal.memory.levers.thrift import Thrift
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
from caudal.runs.refusal import LEAST_RAM, refuse_at_once, static_bytes
from caudal.runs.spec import RunSpec
from caudal.runs.work import WORKS
from caudal.runs.work.base import Work

if TYPE_CHECKING:
    from caudal.training.step import StepBatch

_COMFORT = 0.7  # of the room for a step: past it, thrift is measured, too

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
        _first_to_go(child.pid)
        output, errors = child.communicate(request.model_dump_json())
    if child.returncode == -signal.SIGKILL:
        raise _too_small(request.ram, Bytes(request.ram + 1))
    assert child.returncode == 0, f"the probe failed:\n{errors}"
    answer = json.loads(output.splitlines()[-1])
    if "error" in answer:
        error = answer["error"]
        raise _ERRORS[error["code"]](error["message"], error["hint"], **error["facts"])
    return ProbeResult.model_validate(answer)


def _first_to_go(pid: int) -> None:
    # If the kernel must kill somebody while we measure, it is the probe: its parent can then say why.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


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
    from caudal.training import precision as precisions
    from caudal.training.average import Average
    from caudal.training.fit import Taker
    from caudal.training.step import equal_parts

    rehearsal.load()
    device = vram.choose(request.spec.device)
    free = vram.devices()[0].free if device == "cuda" else Bytes(0)
    torch.set_num_threads(request.threads)
    meter = PeakMeter()
    imported = charged_bytes()
    precision = precisions.choose(device, request.spec.training.precision)
    task = rehearsal.make_task()
    model = assemble.make_model(request.spec, rehearsal.inputs, rehearsal.outputs, device, rehearsal.config)
    prepare, parts = rehearsal.prepare(device), rehearsal.parts
    stepper: Any
    if isinstance(model, Fitted):
        stepper, average = Taker(model, prepare, parts or equal_parts, 1), Average(model, 0)
    else:
        stepper, average = assemble.make_stepper(request.spec, task, model, prepare, parts, precision, 1)
    static = static_bytes(model, average.model)
    decoding = rehearsal.decoding(meter)
    allocator.trim()
    # Inference first: what it leaves in the allocator is there in a run too, which scores as it trains.
    forwards = tuple(rehearsal.forwards(model, task, precision, meter))
    allocator.trim()
    scored = rehearsal.scoring(model, task, precision, meter)
    allocator.trim()
    steps: list[Step] = []
    room = request.ram - imported - sum(static.values())
    sizes = request.exact
    if rehearsal.guess(forwards, min(request.exact)) > room:
        sizes = (*request.inexact, *request.exact)
    furthest = Thrift.COMPUTE_AGAIN if hasattr(model, "recompute_levels") else Thrift.GIVE_BACK
    for position in Thrift(furthest).positions():
        if any(s.ram + s.vram <= _COMFORT * room for s in steps if s.micro_batch in request.exact):
            break  # less thrift is faster
        assemble.make_thrifty(model, position)
        measured: list[Step] = []
        for size in sizes:
            if len(measured) >= 2 and _would_not_fit(measured, size, room):
                break
            stepper.micro_batch = size
            count = min(2 * size, max(request.exact))
            batches = [rehearsal.batch(count, number) for number in range(rehearsal.steps)]
            step = _measure_step(stepper, average, batches, size, meter, imported, static, device)
            measured.append(step.model_copy(update={"thrift": position}))
        steps += measured
    return ProbeResult(
        device=device,
        imported=imported,
        static=static,
        steps=tuple(steps),
        forwards=forwards,
        decoding=decoding,
        scoring=scored,
        precision=precision.name,
        headline=task.headline,
        device_free=free,
    )


def _would_not_fit(steps: list[Step], size: int, room: float) -> bool:
    return line([(step.micro_batch, step.ram) for step in steps], size) > room


def _measure_step(
    stepper: Any,
    average: Any,
    batches: Sequence[StepBatch],
    size: int,
    meter: PeakMeter,
    imported: Bytes,
    static: dict[str, int],
    device: str,
) -> Step:
    meter.reset()
    seconds = []
    for number, batch in enumerate(batches):
        began = time.perf_counter()
        stepper.run(batch, 1e-4)
        average.update(stepper.model, number)
        seconds.append(time.perf_counter() - began)
    held = sum(static.values())
    on_device = vram.peak() if device == "cuda" else None
    return Step(
        micro_batch=size,
        ram=Bytes(max(0, meter.peak() - imported - (held if device == "cpu" else 0))),
        vram=Bytes(max(0, (on_device or held) - held)),
        # The first of a size makes the kernels for it.
        seconds_per_sample=min(seconds[1:]) / batches[0].size,
    )


if __name__ == "__main__":
    main()
