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
    from caudal.runs.result import Result

FAILED, INTERRUPTED = 1, 5


@dataclass(frozen=True, slots=True)
class PictureStep(Event):
    """Pictures went this far, in steps of all of them."""

    kind = "picture_step"
    done: int
    total: int


def make(work: GenerateWork, run: Path, tell: JsonLines, stop: threading.Event) -> Result:
    """Write the pictures into `run/pictures`, under their seeds; the plan beside it once it is made.

    Raises:
        CaudalError: as the verb; `BadModel` for an adapter that is a pickle, too.
    """
    from caudal.runs.generation.studio import open_model
    from caudal.runs.verbs.generate import generate

    opened = open_model(work.model, work.identity, work.adapter, work.faces, work.controls)
    if opened.adapter is not None and opened.adapter.suffix != ".safetensors":
        raise BadModel(
            _("{name} is a pickle, which could run code.").format(name=opened.adapter.name),
            _("Convert it once with `caudal convert`."),
        )

    def planned(plan: GenerationPlan, _studio: object) -> None:
        write_whole(run / "plan.json", lambda part: part.write_text(plan.model_dump_json(), encoding="utf-8"))
        budget, predicted = plan.memory.budget_bytes(), plan.memory.predicted_bytes()
        tell(RunStarted("generation", plan.device, 0, plan.steps, predicted, budget, "generate"))
        for text in plan.warnings:
            tell(Warned(text))

    return generate(
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
        result = make(work, run, tell, stop)
    except CaudalError as error:
        tell(RunEnded("failed", 0.0, None, None, {}, {}, error.message, error.code))
        _say({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        return INTERRUPTED if error.code == "interrupted" else FAILED
    told = result.model_dump(mode="json", exclude_none=True)
    tell(
        RunEnded(
            "succeeded",
            result.seconds or 0.0,
            result.samples_per_second,
            None,
            result.peak_bytes or {},
            result.metrics or {},
        )
    )
    _say(told)
    return 0


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
