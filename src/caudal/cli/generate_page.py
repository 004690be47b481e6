"""The page of generation, by gradio: in a browser on this machine, or in a notebook. Never shared by itself.

What the page does is `generate_desk`; here is where things stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from caudal.cli.generate_desk import Controls, Desk
from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.models.generation.layout import ModelFolder
from caudal.models.generation.libraries import stay_offline
from caudal.runs.generation.notices import caveat, consent, licences
from caudal.runs.generation.studio import Budgets, Studio
from caudal.runs.verbs.generate import check_writable
from caudal.tasks.generation.request import LCM_GUIDANCE, LCM_STEPS
from caudal.tasks.generation.styles import STYLES

_SCHEDULERS = ["default", "euler", "heun", "deis", "dpm++", "dpm++ sde", "lcm"]
_SECONDS = 1.0


def serve(
    model: ModelFolder,
    engine: str,
    budgets: Budgets,
    out: Path,
    port: int | None = None,
    block: bool = True,
    start: Controls | None = None,
) -> Any:
    """Open the page; returns what gradio launched. Only this machine can see it.

    `start` is what its controls say at first. Pictures are written into the folder `out`.

    Raises:
        UsageError: gradio is not installed, or nothing can be written to `out`.
    """
    library = _gradio()
    check_writable(out)
    desk = Desk(Studio(model, engine, budgets), out)
    page = build(library, desk, model, start)
    try:
        return page.queue(default_concurrency_limit=4).launch(
            server_name="127.0.0.1", server_port=port, share=False, quiet=True, prevent_thread_lock=not block,
            allowed_paths=[str(out.resolve())], show_error=True,
        )  # fmt: skip
    finally:
        if block:
            desk.close()


def build(gr: Any, desk: Desk, model: ModelFolder, start: Controls | None = None) -> Any:
    """The page; `gr` is gradio."""
    first = start or Controls()
    told = licences(model, desk.studio.engine.name, desk.studio.engine.licence)
    with gr.Blocks(title="caudal", analytics_enabled=False) as page:
        gr.Markdown(f"**{consent()}**")
        with gr.Row():
            with gr.Column():
                with gr.Row():
                    face = gr.Image(first.face, label=_("Face"), type="filepath", elem_id="face")
                    pose = gr.Image(first.pose, label=_("Pose (optional)"), type="filepath", elem_id="pose")
                prompt = gr.Textbox(first.prompt, label=_("Prompt"), lines=2, elem_id="prompt")
                style = gr.Dropdown(list(STYLES), value=first.style, label=_("Style"))
                fast = gr.Checkbox(value=first.lcm, label=_("Few steps (LCM)"), elem_id="lcm")
                identity = gr.Slider(
                    0,
                    1.5,
                    value=first.identity_strength,
                    step=0.05,
                    label=_("Identity strength (ControlNet)"),
                )
                adapter = gr.Slider(
                    0, 1.5, value=first.adapter_strength, step=0.05, label=_("Likeness strength (adapter)")
                )
                region = gr.Checkbox(value=first.face_region, label=_("Enhance non-face region"))
                strengths, shown = {}, {}
                for kind in model.controls:
                    with gr.Row():
                        strengths[kind] = gr.Slider(
                            0, 1.5, value=first.control_strengths.get(kind, 0.4), step=0.05,
                            label=_("Strength of {kind}").format(kind=kind),
                        )  # fmt: skip
                        drawn = _("Picture for {kind} (else drawn from the pose)") if kind == "canny" else ""
                        shown[kind] = gr.Image(
                            first.control_pictures.get(kind),
                            label=(drawn or _("Picture for {kind}")).format(kind=kind),
                            type="filepath",
                        )
                with gr.Row():
                    button = gr.Button(_("Generate"), variant="primary", elem_id="generate")
                    stop = gr.Button(_("Cancel"), elem_id="cancel")
                with gr.Accordion(_("More"), open=False):
                    negative = gr.Textbox(first.negative, label=_("Negative prompt"))
                    steps = gr.Slider(
                        1,
                        max(100, first.steps or 1),
                        value=first.steps,
                        step=1,
                        label=_("Steps"),
                        elem_id="steps",
                    )
                    guidance = gr.Slider(
                        0,
                        max(10, first.guidance or 0),
                        value=first.guidance,
                        step=0.1,
                        label=_("Guidance"),
                        elem_id="guidance",
                    )
                    scheduler = gr.Dropdown(_SCHEDULERS, value=first.scheduler, label=_("Scheduler"))
                    end = gr.Slider(
                        0.05, 1, value=first.identity_end, step=0.05,
                        label=_("ControlNet rests after this share of the steps"),
                    )  # fmt: skip
                    like_pose = gr.Checkbox(
                        value=first.like_pose, label=_("Size like the pose or the face picture")
                    )
                    width = gr.Slider(
                        64, max(2048, first.width or 0), value=first.width, step=8, label=_("Width")
                    )
                    height = gr.Slider(
                        64, max(2048, first.height or 0), value=first.height, step=8, label=_("Height")
                    )
                    count = gr.Slider(
                        1, max(16, first.count or 1), value=first.count, step=1, label=_("Pictures")
                    )
                    seed = gr.Number(value=first.seed, precision=0, label=_("Seed"))
                    another = gr.Checkbox(value=first.another_seed, label=_("Another seed each time"))
            with gr.Column():
                predicted = gr.HTML(elem_id="predicted")
                bars = gr.HTML(elem_id="bars")
                words = gr.Markdown(elem_id="words")
                pictures = gr.Gallery(label=_("Pictures of this sitting"), elem_id="pictures", columns=3)
                with gr.Accordion(_("Licences"), open=False):
                    gr.Markdown("\n".join(f"* **{part}**: {text}" for part, text in told.items()))
                    gr.Markdown(caveat())
        inputs = {
            "face": face, "pose": pose, "prompt": prompt, "negative": negative, "style": style, "lcm": fast,
            "width": width, "height": height, "like_pose": like_pose, "steps": steps, "guidance": guidance,
            "seed": seed, "another_seed": another, "count": count, "identity_strength": identity,
            "adapter_strength": adapter, "scheduler": scheduler, "identity_end": end, "face_region": region,
        }  # fmt: skip
        names = list(inputs)
        parts = [*inputs.values(), *strengths.values(), *shown.values()]

        def controls(values: tuple[Any, ...]) -> Controls:
            plain, more = values[: len(names)], values[len(names) :]
            return replace(
                first,
                **dict(zip(names, plain, strict=True)),
                control_strengths=dict(zip(strengths, more[: len(strengths)], strict=True)),
                control_pictures=dict(zip(shown, more[len(strengths) :], strict=True)),
            )

        def foretell(*values: Any) -> str:
            return desk.predicted(controls(values))

        def make(*values: Any) -> Iterator[tuple[Any, str, int | None]]:
            yield from desk.make(controls(values))

        fast.input(_few_steps, fast, [steps, guidance, scheduler], show_progress="hidden")
        for one in (face, pose, width, height, like_pose, count, fast, guidance, scheduler):
            # One at a time, in their order: an answer to an earlier question must not come last.
            one.change(
                foretell, parts, predicted, show_progress="hidden", concurrency_limit=1, concurrency_id="plan"
            )
        button.click(make, parts, [pictures, words, seed], concurrency_limit=1)
        stop.click(desk.cancel, None, words, show_progress="hidden")
        gr.Timer(_SECONDS).tick(desk.bars, None, bars, show_progress="hidden")
        page.load(foretell, parts, predicted, concurrency_limit=1, concurrency_id="plan")
    return page


def _few_steps(on: bool) -> tuple[int, float, str]:
    """What the sliders say once few steps are wanted, or no longer; the user may move them then."""
    if on:
        return LCM_STEPS, LCM_GUIDANCE, "lcm"
    plain = Controls()
    return plain.steps or 1, plain.guidance or 0.0, plain.scheduler


def _gradio() -> Any:
    stay_offline()  # gradio brings a library that looks once whether it may fetch
    try:
        return import_module("gradio")
    except ImportError:
        raise UsageError(
            _("The page needs the package gradio, which is not installed."),
            _("Install it with: pip install 'caudal[page]'"),
        ) from None
