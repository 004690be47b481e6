"""What a model folder holds besides networks: its schedule of noise and its tokenizers, read and tried."""

from __future__ import annotations

from typing import Any

from caudal.core.errors import BadModel, UsageError
from caudal.core.messages import _
from caudal.models.generation.layout import ModelFolder, read_config
from caudal.models.generation.libraries import need

_SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++ sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "lcm": ("LCMScheduler", {}),
}


def tokenizer(folder: ModelFolder, name: str, most: int) -> Any:
    """A tokenizer that makes no more tokens than its encoder reads, whatever its file says or leaves out.

    Raises:
        BadModel: it cannot be read.
    """
    from transformers import CLIPTokenizer

    try:
        found = CLIPTokenizer.from_pretrained(str(folder.base / name), local_files_only=True)
        found.model_max_length = min(found.model_max_length, most)
        return found
    except Exception as error:  # a library that reads what strangers wrote has no tree of errors
        raise BadModel(
            _("{path} holds no tokenizer that can be read: {why}.").format(
                path=folder.base / name, why=_first_line(error)
            ),
            _("Fetch the folder again."),
        ) from None


def schedule(folder: ModelFolder) -> dict[str, Any]:
    """The configuration of the model's own scheduler.

    Raises:
        BadModel: there is none, or it is of a kind that is not known.
    """
    config = read_config(folder.base / "scheduler", "scheduler_config.json")
    name = str(config.get("_class_name", ""))
    if not name.endswith("Scheduler") or not hasattr(need("diffusers"), name):
        raise BadModel(
            _("{path} names no scheduler that is known ({name}).").format(
                path=folder.base / "scheduler", name=name
            ),
            _("Fetch the folder again."),
        )
    return config


def schedule_called(name: str, config: dict[str, Any]) -> Any:
    """The scheduler that a request calls so, on the model's schedule; `default` is the model's own.

    Raises:
        BadModel: the schedule cannot be used.
    """
    library: Any = need("diffusers")
    kind, options = _SCHEDULERS.get(name, (config["_class_name"], {}))
    try:
        return getattr(library, kind).from_config(config, **options)
    except Exception as error:  # a library that reads what strangers wrote has no tree of errors
        raise BadModel(
            _("The model's folder “scheduler” cannot be used: {why}.").format(why=_first_line(error)),
            _("Fetch the folder again."),
        ) from None


def check_steps(scheduler: Any, steps: int) -> None:
    """Find out before anything is loaded that a scheduler cannot make so many steps.

    Raises:
        UsageError: it cannot.
    """
    try:
        scheduler.set_timesteps(steps)
    except Exception as error:  # as above; which values it cannot use is known to it alone
        raise UsageError(
            _("{steps} steps cannot be made by {name}: {why}.").format(
                steps=steps, name=type(scheduler).__name__, why=_first_line(error)
            ),
            _("Ask for fewer steps, or for another scheduler (--scheduler)."),
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
