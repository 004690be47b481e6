"""What words of a generation on a command line ask for: a request, a page's beginning, a plan of sizes."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from caudal.core.errors import UsageError
from caudal.core.messages import _

if TYPE_CHECKING:
    from caudal.cli.generate_desk import Controls
    from caudal.runs.generation.plan import GenerationPlan
    from caudal.tasks.generation.request import GenerationRequest


def make_request(
    prompt: str,
    *,
    size: str | None,
    lcm: bool,
    control_strength: list[str] | None,
    **given: Any,
) -> GenerationRequest:
    """A request from flags; those that were not given keep their defaults.

    Raises:
        UsageError: a value out of range.
    """
    from caudal.tasks.generation import request as requests

    values = {key: value for key, value in given.items() if value is not None}
    values["prompt"] = prompt
    if size is not None:
        values["width"], values["height"] = requests.size_text(size)
    strengths = pairs(control_strength, "--control-strength")
    try:
        values["control_strengths"] = {kind: float(number) for kind, number in strengths.items()}
    except ValueError:
        raise UsageError(
            _("A strength of --control-strength is no number."), _("Write it like canny=0.4.")
        ) from None
    made = requests.GenerationRequest.make(values)
    return requests.lcm(made) if lcm else made


def pairs(given: list[str] | None, flag: str) -> dict[str, str]:
    """KIND=VALUE as a dict.

    Raises:
        UsageError: without a kind, or a kind twice.
    """
    found: dict[str, str] = {}
    for text in given or []:
        kind, equals, value = text.partition("=")
        if not (kind and equals and value) or kind in found:
            raise UsageError(
                _("{flag} {text} is not understood.").format(flag=flag, text=text),
                _("Write it like {flag} canny=PATH, each kind once.").format(flag=flag),
            )
        found[kind] = value
    return found


def start_of_page(
    request: GenerationRequest, people: list[str], pose: str | None, shown: dict[str, str], lcm: bool,
    another_seed: bool,
) -> Controls:  # fmt: skip
    """What the page's controls say at first: what was given with `--ui`.

    Raises:
        UsageError: several people, for whom the page has no place.
    """
    from caudal.cli.generate_desk import Controls

    if len(people) > 1:
        raise UsageError(
            _("The page makes pictures of one person, and {count} were given.").format(count=len(people)),
            _("Give one --identity, or leave --ui out."),
        )
    said = {one.name for one in fields(Controls)}
    values = {
        name: value for name, value in request.model_dump().items() if name in said and value is not None
    }
    values |= {"lcm": lcm, "like_pose": request.width is None, "another_seed": another_seed}
    values |= {"face": people[0] if people else None, "pose": pose, "control_pictures": dict(shown)}
    return Controls(**values)


def refuse_on_page(**given: bool) -> None:
    """Flags that change nothing on a page are refused rather than ignored.

    Raises:
        UsageError: one was given.
    """
    for name, there in given.items():
        if there:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                _("{flag} has no place on the page that --ui opens.").format(flag=flag),
                _("Leave {flag} or --ui out.").format(flag=flag),
            )


def needed(model: str | None, identity: list[str] | None, prompt: str | None, out: str | None) -> None:
    """Say what is missing.

    Raises:
        UsageError: something is.
    """
    for value, flag in ((model, "--model"), (identity, "--identity"), (prompt, "--prompt"), (out, "-o")):
        if value is None or value == []:
            raise UsageError(
                _("{flag} is needed.").format(flag=flag),
                _("For example: caudal generate --model sdxl/ --identity face.jpg --prompt “…” -o out.png"),
            )


_MOST_CONTROLS = 8
_PLANNED = ("batch", "precision", "guidance", "controls")


def plan_published(words: list[str], ram: str | None, vram: str | None, device: str | None) -> GenerationPlan:
    """`caudal plan generation [WIDTHxHEIGHT] [KEY=VALUE…]`: from the published sizes alone.

    Keys are those of a request that change what is held, and `controls`, the count of further ControlNets.

    Raises:
        DoesNotFit: nothing stays inside the budgets.
        UsageError: a word that is neither a size nor such a key, or a wrong value.
    """
    from caudal.runs.verbs.generate import plan_generation
    from caudal.tasks.generation.request import GenerationRequest, size_text

    sizes = [word for word in words if "=" not in word]
    said = dict(word.split("=", 1) for word in words if "=" in word)
    if len(sizes) > 1 or said.keys() - set(_PLANNED):
        raise UsageError(
            _("A plan of generation takes a size and {keys}, and nothing else.").format(
                keys=", ".join(f"{key}=…" for key in _PLANNED)
            ),
            _("Write: caudal plan generation 1024x1024 batch=2"),
        )
    controls = said.pop("controls", "0")
    if not controls.isdecimal() or int(controls) > _MOST_CONTROLS:
        raise UsageError(
            _("controls={value} is no count of ControlNets.").format(value=controls),
            _("Give a number from 0 to {most}.").format(most=_MOST_CONTROLS),
        )
    width, height = size_text(sizes[0]) if sizes else (1024, 1024)
    values = {"prompt": "", "width": width, "height": height, "count": said.get("batch", 1), **said}
    request = GenerationRequest.make(values)
    return plan_generation(request, ram=ram, vram=vram, device=device or "auto", controls=int(controls))
