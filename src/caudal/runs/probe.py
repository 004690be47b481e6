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
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.config import Frozen
from caudal.core.errors import CaudalError, DeviceMissing, DoesNotFit, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.data.readers import READERS
from caudal.data.stream import Batch
from caudal.memory import allocator, vram
from caudal.memory.cost import Forward, ProbeResult, Step, line
from caudal.memory.levers.thrift import Thrift
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.machine import settle
from caudal.runs.pieces import Pieces
from caudal.runs.refusal import LEAST_RAM, OUTPUTS, refuse_at_once, static_bytes
from caudal.runs.spec import RunSpec

FORWARD_SIDES_PX = (256, 576)
_COMFORT = 0.7  # of the room for a step: past it, thrift is measured, too
_STEPS = 2  # the first of a size makes the kernels for it; the second is measured

_ERRORS: dict[str, type[CaudalError]] = {e.code: e for e in (DeviceMissing, DoesNotFit, UsageError)}


class ProbeRequest(Frozen):
    """What to measure: a spec, the data's bands and dtype, the patch.

    Micro-batches in growing order: the `exact` ones, and before them the smaller `inexact` ones where it
    looks as if no exact one would fit.
    """

    spec: RunSpec
    bands: int
    dtype: str
    patch_px: int
    exact: tuple[int, ...]
    inexact: tuple[int, ...]
    ram: Bytes
    threads: int
    decoding_threads: int
    pieces: Pieces


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

    refuse_at_once(request.spec, request.bands, request.patch_px, request.ram)
    import rich.progress  # noqa: F401 - a run draws with it

    from caudal.data.normalize import Normalization
    from caudal.runs import assemble, loaded, scoring, tensorboard  # noqa: F401 - a run has them all
    from caudal.runs.rehearsal import decoding_bytes, scoring_bytes
    from caudal.runs.tiling import validation_tiling
    from caudal.training import loop  # noqa: F401
    from caudal.training import precision as precisions

    for name in READERS.names():
        READERS.get(name)
    device = vram.choose(request.spec.device)
    free = vram.devices()[0].free if device == "cuda" else Bytes(0)
    torch.set_num_threads(request.threads)
    meter = PeakMeter()
    imported = charged_bytes()
    precision = precisions.choose(device, request.spec.training.precision)
    names = tuple(map(str, range(OUTPUTS)))
    task = assemble.make_task(request.spec, names)
    model = assemble.make_model(request.spec, request.bands, OUTPUTS, device)
    normalization = Normalization.plain(request.bands)
    stepper, average = assemble.make_stepper(request.spec, task, model, normalization, precision, 1)
    static = static_bytes(model, average.model)
    decoding = decoding_bytes(request.pieces, request.dtype, request.decoding_threads, meter)
    allocator.trim()
    # Inference first: what it leaves in the allocator is there in a run too, which scores as it trains.
    forwards = _measure_forwards(request, model, task, normalization, precision, meter)
    infer = _forward(model, task, normalization, precision)
    allocator.trim()
    scored = scoring_bytes(request.pieces, infer, validation_tiling(model), OUTPUTS, meter)
    allocator.trim()
    steps: list[Step] = []
    room = request.ram - imported - sum(static.values())
    sizes = request.exact
    if _guess(request, forwards, min(request.exact)) > room:
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
            batch = _batch(request, min(2 * size, max(request.exact)))
            step = _measure_step(stepper, average, batch, size, meter, imported, static, device)
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
        receptive_field_px=int(model.receptive_field_px),  # type: ignore[arg-type]
        precision=precision.name,
        device_free=free,
    )


def _guess(request: ProbeRequest, forwards: tuple[Forward, ...], size: int) -> float:
    """Roughly what a step takes: training keeps about three times what inference holds at once."""
    area_px = size * request.patch_px**2
    return 3 * line([(f.side_px**2, max(f.ram, f.vram)) for f in forwards], area_px)


def _would_not_fit(steps: list[Step], size: int, room: float) -> bool:
    return line([(step.micro_batch, step.ram) for step in steps], size) > room


def _batch(request: ProbeRequest, size: int) -> Batch:
    draw = np.random.default_rng(0)
    side, dtype = request.patch_px, np.dtype(request.dtype)
    x_BHWC = draw.integers(0, 120, (size, side, side, request.bands)).astype(dtype)
    y_BHW = draw.integers(0, OUTPUTS, (size, side, side)).astype(np.uint8)
    return Batch(x_BHWC, y_BHW, np.zeros(size, np.int64), np.arange(size), 0.0)


def _measure_step(
    stepper: Any,
    average: Any,
    batch: Batch,
    size: int,
    meter: PeakMeter,
    imported: Bytes,
    static: dict[str, int],
    device: str,
) -> Step:
    meter.reset()
    seconds = []
    for number in range(_STEPS):
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
        seconds_per_sample=min(seconds[1:]) / len(batch.sample_B),
    )


def _forward(model: Any, task: Any, normalization: Any, precision: Any) -> Any:
    from caudal.inference.forward import Forward as Infer
    from caudal.models.fold import folded

    return Infer(folded(model), task.probabilities, normalization, 0, precision.device, precision.autocast)


def _measure_forwards(
    request: ProbeRequest,
    model: Any,
    task: Any,
    normalization: Any,
    precision: Any,
    meter: PeakMeter,
) -> tuple[Forward, ...]:
    device, ready = precision.device, charged_bytes()
    infer = _forward(model, task, normalization, precision)
    found = []
    for side in FORWARD_SIDES_PX:
        x_NHWC = np.zeros((1, side, side, request.bands), request.dtype)
        meter.reset()
        before = vram.peak() if device == "cuda" else None
        began = time.perf_counter()
        infer(x_NHWC, None)
        seconds = time.perf_counter() - began
        on_device = (vram.peak() or 0) - (before or 0) if device == "cuda" else 0
        found.append(
            Forward(
                side_px=side,
                ram=Bytes(max(0, meter.peak() - ready)),
                vram=Bytes(max(0, on_device)),
                seconds=seconds,
            )
        )
    return tuple(found)


if __name__ == "__main__":
    main()
