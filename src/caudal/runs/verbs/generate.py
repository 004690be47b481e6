"""`generate`: pictures of a person from a face, a prompt and a seed, inside a RAM and a VRAM budget."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.memory import vram as vram_meter
from caudal.memory.meters import Watch
from caudal.models.generation.libraries import stay_offline
from caudal.runs.generation.plan import GenerationPlan
from caudal.runs.generation.studio import Budgets, Studio, Wish, open_model
from caudal.runs.result import Result
from caudal.tasks.generation.request import GenerationRequest

Tick = Callable[[int, int], None]


def plan_generation(
    request: GenerationRequest | None = None,
    *,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str = "auto",
    controls: int = 0,
) -> GenerationPlan:
    """What pictures of the published sizes would take, from configurations alone: no file is needed.

    With `vram` and no GPU here, it is a plan for a GPU with so much.

    Raises:
        DoesNotFit: nothing stays inside the budget; says the least.
        UsageError: a package is missing.
    """
    from caudal.models.generation.libraries import need
    from caudal.runs.generation.plan import make_plan

    need("diffusers"), need("transformers"), need("accelerate")
    from caudal.runs.generation.trace import published

    wanted = request or GenerationRequest(prompt="")
    return make_plan(wanted, published(controls), ram=ram, vram=vram, device=device, imagined=True)


def generate(
    request: GenerationRequest,
    *,
    model: str | Path,
    people: str | Path | Sequence[str | Path],
    out: str | Path,
    pose: str | Path | None = None,
    identity: str | Path | None = None,
    adapter: str | Path | None = None,
    faces: str | Path | None = None,
    engine: str = "onnx",
    controls: Mapping[str, str] | None = None,
    control_pictures: Mapping[str, str] | None = None,
    lcm: str | Path | None = None,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str = "auto",
    exact: bool = False,
    watermark: bool = True,
    metadata: bool = True,
    planned: Callable[[GenerationPlan, Studio], None] = lambda _plan, _studio: None,
    tick: Tick = lambda _done, _total: None,
    stop: threading.Event | None = None,
) -> Result:
    """Write PNGs: one to the file `out`, several into the folder `out` under their seeds.

    `people` are pictures of faces, one a person. `exact` pulls no lever that changes
    numbers. `planned` hears the plan before anything is loaded.

    Raises:
        BadModel: a part is missing, broken, of another model, or must not be opened.
        BadValues: no face where one should be.
        DeviceMissing: `device` is not here.
        DoesNotFit: nothing stays inside the budget; nothing was loaded.
        Interrupted: `stop` was set; finished pictures are on disk.
        UnreadableFile: a picture that cannot be read.
        UsageError: a prompt that is too long, a wrong size, a package that is missing.
    """
    stay_offline()
    began = time.monotonic()
    many = [people] if isinstance(people, str | Path) else list(people)
    if not many:
        raise UsageError(_("No face was given."), _("Give a picture with --identity."))
    wish = Wish(
        request,
        tuple(map(str, many)),
        None if pose is None else str(pose),
        dict(control_pictures or {}),
    )
    places = _places(Path(out), request)
    opened = open_model(model, identity, adapter, faces, controls, lcm)
    with Watch() as watch, Studio(opened, engine, Budgets(ram, vram, device, exact)) as studio:
        plan = studio.plan(wish)
        planned(plan, studio)
        halt = stop or threading.Event()
        for finished in studio.make(wish, plan, tick, halt.is_set):
            write(next(places), finished.x_HWC, finished.facts, watermark, metadata)
        seconds = studio.seconds
        warnings = tuple(dict.fromkeys([*plan.warnings, *studio.warnings, *unmarked(plan, watermark)]))
        told = studio.forecast
        hits = {f"{name}_known": float(count) for name, count in studio.hits.items()}
    spent = seconds.get("steps", 0.0)
    return Result(
        verb="generate",
        output=str(out),
        metrics={
            "pictures": float(request.count),
            "seconds_per_step": spent / (request.steps * -(-request.count // plan.pictures)),
            **{f"seconds_{name}": value for name, value in seconds.items()},
            **hits,
            **({} if told is None else {"seconds_per_step_foretold": told.from_disk_seconds}),
        },
        budget_bytes=plan.memory.budget_bytes(),
        predicted_bytes=plan.memory.predicted_bytes(),
        peak_bytes={"ram": int(watch.peak), "vram": int(vram_meter.peak() or 0)},
        seconds=time.monotonic() - began,
        samples_per_second=request.count / max(1e-9, time.monotonic() - began),
        levers={lever.name: lever.value for lever in plan.memory.levers},
        warnings=warnings,
    )


def write(path: Path, x_HWC: object, facts: dict[str, object], watermark: bool, metadata: bool) -> None:
    """Write one picture, with its mark and its facts unless they were declined.

    Raises:
        DiskFull: no space was left.
    """
    import numpy as np

    from caudal.inference.generation.provenance import write_picture
    from caudal.inference.generation.watermark import mark

    pixels = np.asarray(x_HWC, np.uint8)
    write_picture(path, mark(pixels) if watermark else pixels, facts if metadata else None)


def _places(out: Path, request: GenerationRequest) -> Iterator[Path]:
    """Where each picture goes; made and checked before anything is loaded."""
    single = request.count == 1 and out.suffix.lower() == ".png"
    if not single and out.suffix:
        raise UsageError(
            _("Pictures are written as PNG, several into a folder; {out} is neither.").format(out=out),
            _("Give a file that ends in .png for one picture, or a folder."),
        )
    if single and out.is_dir():
        raise UsageError(_("{out} is a folder.").format(out=out), _("Give another name."))
    check_writable(out.parent if single else out)
    if single:
        return iter([out])
    return (out / f"{request.seed + number}.png" for number in range(request.count))


def check_writable(folder: Path) -> None:
    """Make a folder, and find out now, not when a picture is finished, that nothing can be written there.

    Raises:
        UsageError: nothing can.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(
            _("Nothing can be written to {path}: {why}.").format(path=folder, why=error.strerror or error),
            _("Give another place with -o."),
        ) from None


def unmarked(plan: GenerationPlan, watermark: bool = True) -> list[str]:
    """What is said of pictures that are to carry the mark and are too small for it."""
    from caudal.inference.generation.watermark import LEAST_PX

    if watermark and min(plan.width, plan.height) < LEAST_PX:
        return [
            _("Pictures smaller than {px} pixels have no room for the invisible mark.").format(px=LEAST_PX)
        ]
    return []
