"""Does a work of pictures in a process of its own: `generate`, which tells of its plan and each step.

The service's child; `caudal generate` is the same verb on a terminal. Knows no job and no store.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caudal.core.errors import BadModel, CaudalError
from caudal.core.events import Event, JsonLines, RunEnded, RunStarted, Warned
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.runs.watched import heed_fence
from caudal.service.work import WORK_VARIABLE, GenerateWork

if TYPE_CHECKING:
    from caudal.runs.generation.plan import GenerationPlan
    from caudal.runs.generation.studio import Studio

FAILED, INTERRUPTED = 1, 5


@dataclass(frozen=True, slots=True)
class PictureStep(Event):
    """Pictures went this far, in steps of all of them."""

    kind = "picture_step"
    done: int
    total: int


def make(work: GenerateWork, run: Path, tell: JsonLines, stop: threading.Event) -> dict[str, Any]:
    """Write the pictures into `run/pictures`, under their seeds; the plan beside it once it is made.

    Returns the verb's result with what stands beside every picture of a person: `notice`, `caveat`, and the
    licence of each part as `licences`.

    Raises:
        CaudalError: as the verb; `BadModel` for an adapter that is a pickle, too.
    """
    from caudal.runs.generation.notices import caveat, consent, licences
    from caudal.runs.generation.studio import open_model
    from caudal.runs.verbs.generate import generate

    opened = open_model(work.model, work.identity, work.adapter, work.faces, work.controls, work.lcm)
    for file in (opened.adapter, opened.lcm):
        if file is not None and file.suffix != ".safetensors":
            raise BadModel(
                _("{name} is a pickle, which could run code.").format(name=file.name),
                _("Convert it once with `caudal convert`."),
            )
    beside: dict[str, Any] = {"notice": consent(), "caveat": caveat()}

    def planned(plan: GenerationPlan, studio: Studio) -> None:
        beside["licences"] = licences(studio.model, studio.engine.name, studio.engine.licence)
        write_whole(run / "plan.json", lambda part: part.write_text(plan.model_dump_json(), encoding="utf-8"))
        budget, predicted = plan.memory.budget_bytes(), plan.memory.predicted_bytes()
        tell(RunStarted("generation", plan.device, 0, plan.steps, predicted, budget, "generate"))
        for text in plan.warnings:
            tell(Warned(text))

    result = generate(
        work.request,
        model=work.model,
        people=work.people,
        out=run / "pictures",
        pose=work.pose,
        identity=work.identity,
        adapter=work.adapter,
        faces=work.faces,
        engine=work.engine,
        controls=work.controls,
        control_pictures=work.control_pictures,
        lcm=work.lcm,
        ram=work.ram,
        vram=work.vram,
        device=work.device or "auto",
        exact=work.exact,
        watermark=work.watermark,
        metadata=work.metadata,
        planned=planned,
        tick=lambda done, total: tell(PictureStep(done, total)),
        stop=stop,
    )
    return result.model_dump(mode="json", exclude_none=True) | beside


def main() -> int:
    """Do what the environment says, and print the result, or the error, as the last line."""
    heed_fence()
    work = GenerateWork.model_validate_json(os.environ.pop(WORK_VARIABLE))
    run, stop = Path(sys.argv[1]), threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    tell = JsonLines(run / "events.jsonl")
    try:
        told = make(work, run, tell, stop)
    except CaudalError as error:
        tell(RunEnded("failed", 0.0, None, None, {}, {}, error.message, error.code))
        _say({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        return INTERRUPTED if error.code == "interrupted" else FAILED
    tell(
        RunEnded(
            "succeeded",
            told["seconds"],
            told["samples_per_second"],
            None,
            told["peak_bytes"],
            told["metrics"],
        )
    )
    _say(told)
    return 0


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
