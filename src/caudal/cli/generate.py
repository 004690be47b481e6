"""The verb `generate` on a terminal: its flags, its notices, its plan card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from caudal.cli import render
from caudal.cli.generate_words import make_request, needed, pairs, refuse_on_page, start_of_page
from caudal.core.messages import _

if TYPE_CHECKING:
    from caudal.runs.generation.plan import GenerationPlan
    from caudal.runs.generation.studio import Studio

Model = Annotated[
    str | None, typer.Option("--model", help=_("Folder of an SDXL model with its identity parts."))
]
Identity = Annotated[
    list[str] | None, typer.Option("--identity", help=_("A picture of a face; several for several people."))
]
Prompt = Annotated[str | None, typer.Option("--prompt", help=_("What the picture shows."))]
Negative = Annotated[str, typer.Option("--negative", help=_("What it should not show."))]
Style = Annotated[str, typer.Option("--style", help=_("Words around the prompt, such as watercolour."))]
Pose = Annotated[str | None, typer.Option("--pose", help=_("A picture that says where faces are."))]
Control = Annotated[
    list[str] | None, typer.Option("--control", help=_("A further ControlNet: KIND=FOLDER, such as canny=…"))
]
ControlPicture = Annotated[
    list[str] | None, typer.Option("--control-picture", help=_("What a ControlNet is shown: KIND=FILE."))
]
ControlStrength = Annotated[
    list[str] | None, typer.Option("--control-strength", help=_("How much it counts: KIND=0.4."))
]
IdentityNet = Annotated[
    str | None, typer.Option("--identity-net", help=_("Folder of the ControlNet of faces."))
]
Adapter = Annotated[str | None, typer.Option("--adapter", help=_("File of the identity adapter."))]
Faces = Annotated[str | None, typer.Option("--faces", help=_("Folder of the face engine's models."))]
Engine = Annotated[str, typer.Option("--engine", help=_("Face engine: onnx, opencv or stand_in."))]
Size = Annotated[str | None, typer.Option("--size", help=_("Pixels: WIDTHxHEIGHT, multiples of 8."))]
Steps = Annotated[int | None, typer.Option("--steps", help=_("Steps from noise to the picture."))]
Guidance = Annotated[float | None, typer.Option("--guidance", help=_("How strictly the prompt is followed."))]
Count = Annotated[int, typer.Option("--count", help=_("Pictures, with seeds that follow each other."))]
Batch = Annotated[int, typer.Option("--batch", help=_("Pictures that are made at once."))]
IdentityStrength = Annotated[
    float, typer.Option("--identity-strength", help=_("Of the ControlNet, 0 to 1.5."))
]
AdapterStrength = Annotated[float, typer.Option("--adapter-strength", help=_("Of the adapter, 0 to 1.5."))]
IdentityEnd = Annotated[
    float, typer.Option("--identity-end", help=_("Share of the steps after which the ControlNet rests."))
]
FaceRegion = Annotated[
    bool, typer.Option("--face-region", help=_("Keep the identity to the face; the rest follows the prompt."))
]
Lcm = Annotated[bool, typer.Option("--lcm", help=_("Few steps, for a latent consistency model."))]
LcmAdapter = Annotated[
    str | None, typer.Option("--lcm-adapter", help=_("An LCM adapter (.safetensors) to merge when loading."))
]
Scheduler = Annotated[
    str, typer.Option("--scheduler", help=_("default, euler, heun, deis, dpm++, “dpm++ sde” or lcm."))
]
Precision = Annotated[str, typer.Option("--precision", help=_("auto, bf16, fp16 or fp32."))]
NoWatermark = Annotated[bool, typer.Option("--no-watermark", help=_("Leave the invisible mark out."))]
NoMetadata = Annotated[bool, typer.Option("--no-metadata", help=_("Leave out how it was made."))]
OnlyPlan = Annotated[bool, typer.Option("--plan", help=_("Say what it would take; load nothing."))]
Exact = Annotated[
    bool, typer.Option("--exact", help=_("No lever that changes numbers: no 8 bits, no tiles."))
]
Ui = Annotated[bool, typer.Option("--ui", help=_("Open a page in the browser instead."))]


def plan_card(plan: GenerationPlan) -> RenderableType:
    """What pictures are promised: size, bytes by holder, levers and why."""
    parts: list[RenderableType] = [
        Text(
            _(
                "{count} of {width}×{height} pixels, {steps} steps, {batch} at once, {type} on {device}"
            ).format(
                count=plan.count,
                width=plan.width,
                height=plan.height,
                steps=plan.steps,
                batch=plan.pictures,
                type=plan.precision,
                device=plan.device,
            )
        ),
        Text(),
    ]
    for pool, budget in (("ram", plan.memory.ram), ("vram", plan.memory.vram)):
        holders = [holder for holder in plan.memory.holders if holder.pool == pool]
        if holders and budget:
            parts += [render._pool(pool, holders, budget), Text()]
    levers = render._grid("left", "right", "left")
    for lever in plan.memory.levers:
        levers.add_row(Text(lever.name, style="bold"), lever.value, Text(lever.why, style="dim"))
    for row in plan.memory.rejected:
        levers.add_row(Text(_("not"), style="dim"), "", Text(f"{row.change}: {row.why}", style="dim"))
    parts.append(levers)
    parts += [Text(f"! {text}", style="yellow") for text in plan.warnings]
    return Panel(Group(*parts), title=_("plan · {task}").format(task="generation"), title_align="left")


def plan_values(plan: GenerationPlan) -> dict[str, Any]:
    """A plan as the last line of `--json`."""
    return {
        "verb": "plan",
        "budget_bytes": plan.memory.budget_bytes(),
        "predicted_bytes": plan.memory.predicted_bytes(),
        "levers": {lever.name: lever.value for lever in plan.memory.levers},
        "warnings": list(plan.warnings),
        "plan": plan.model_dump(mode="json"),
    }


def tell(console: Console, plan: GenerationPlan, studio: Studio) -> None:
    """What stands before the work: the notice, the licences, the plan."""
    from caudal.runs.generation.notices import caveat, consent, licences

    console.print(Text(consent(), style="bold"))
    table = render._grid("left", "left")
    for part, licence in licences(studio.model, studio.engine.name, studio.engine.licence).items():
        table.add_row(part, licence)
    console.print(Panel(Group(table, Text(caveat(), style="dim")), title=_("licences"), title_align="left"))
    console.print(plan_card(plan))
    studio.say = lambda text: console.print(Text(f"! {text}", style="yellow"))


def register(app: typer.Typer, face_of: Any, stopping: Any, finish: Any) -> None:
    """Add the verb to `app`; the rest is how `main` speaks, stops and ends."""

    @app.command(help=_("Make pictures of a person from a face and a prompt, inside the budget."))
    def generate(
        model: Model = None,
        identity: Identity = None,
        prompt: Prompt = None,
        out: Annotated[str | None, typer.Option("--out", "-o", help=_("Where to write."))] = None,
        negative: Negative = "",
        style: Style = "none",
        pose: Pose = None,
        control: Control = None,
        control_picture: ControlPicture = None,
        control_strength: ControlStrength = None,
        identity_net: IdentityNet = None,
        adapter: Adapter = None,
        faces: Faces = None,
        engine: Engine = "onnx",
        size: Size = None,
        steps: Steps = None,
        guidance: Guidance = None,
        seed: Annotated[
            int | None, typer.Option("--seed", help=_("Number that all randomness comes from."))
        ] = None,
        count: Count = 1,
        batch: Batch = 1,
        identity_strength: IdentityStrength = 0.8,
        adapter_strength: AdapterStrength = 0.8,
        identity_end: IdentityEnd = 1.0,
        face_region: FaceRegion = False,
        lcm: Lcm = False,
        lcm_adapter: LcmAdapter = None,
        scheduler: Scheduler = "default",
        precision: Precision = "auto",
        ram: Annotated[
            str | None, typer.Option(help=_("Bytes of memory that may be held, like 4GiB."))
        ] = None,
        vram: Annotated[str | None, typer.Option(help=_("Bytes of GPU memory that may be held."))] = None,
        device: Annotated[str, typer.Option(help=_("auto, cuda or cpu; never a silent fallback."))] = "auto",
        exact: Exact = False,
        no_watermark: NoWatermark = False,
        no_metadata: NoMetadata = False,
        only_plan: OnlyPlan = False,
        ui: Ui = False,
        as_json: Annotated[
            bool, typer.Option("--json", help=_("Print one JSON object as the last line."))
        ] = False,
    ) -> None:
        """See `runs/verbs/generate.py`."""
        with face_of(as_json) as face:
            from caudal.models.generation.libraries import stay_offline

            stay_offline()
            from caudal.runs.generation.studio import Budgets, Studio, Wish, check_controls, open_model

            if ui:
                needed(model, ["-"], "-", "-")
                refuse_on_page(
                    plan=only_plan, json=as_json, no_watermark=no_watermark, no_metadata=no_metadata
                )
            else:
                needed(model, identity, prompt, "-" if only_plan else out)
            request = make_request(
                prompt or "",
                size=size,
                lcm=lcm,
                control_strength=control_strength,
                negative=negative,
                style=style,
                steps=steps,
                guidance=guidance,
                seed=seed,
                count=count,
                batch=batch,
                identity_strength=identity_strength,
                adapter_strength=adapter_strength,
                identity_end=identity_end,
                face_region=face_region,
                scheduler=scheduler,
                precision=precision,
            )
            controls = pairs(control, "--control")
            shown = pairs(control_picture, "--control-picture")
            if ui:
                from caudal.cli.generate_page import serve

                start = start_of_page(request, list(identity or ()), pose, shown, lcm, seed is None)
                opened = open_model(model or "", identity_net, adapter, faces, controls, lcm_adapter)
                check_controls(opened, shown, request.control_strengths)
                budgets = Budgets(ram, vram, device, exact)
                serve(opened, engine, budgets, Path(out or "pictures"), start=start)
                return
            if only_plan:
                wish = Wish(request, tuple(identity or ()), pose, shown)
                opened = open_model(model or "", identity_net, adapter, faces, controls, lcm_adapter)
                with Studio(opened, engine, Budgets(ram, vram, device, exact)) as studio:
                    made = studio.plan(wish)
                face.console.print(plan_card(made))
                face.end(plan_values(made))
                return
            from caudal.runs.verbs.generate import generate as run_generation

            with stopping() as stop, _bar(face.console) as tick:
                result = run_generation(
                    request,
                    model=model or "",
                    people=list(identity or ()),
                    out=out or "",
                    pose=pose,
                    identity=identity_net,
                    adapter=adapter,
                    faces=faces,
                    engine=engine,
                    controls=controls,
                    control_pictures=shown,
                    lcm=lcm_adapter,
                    ram=ram,
                    vram=vram,
                    device=device,
                    exact=exact,
                    watermark=not no_watermark,
                    metadata=not no_metadata,
                    planned=lambda plan, studio: tell(face.console, plan, studio),
                    tick=tick,
                    stop=stop,
                )
            finish(face, result)


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Steps as one line on a terminal; nothing where there is none."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(_("steps"), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
