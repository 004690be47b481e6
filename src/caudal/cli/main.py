"""The verbs. Every one takes `--json`: the last line of standard output is then one JSON object."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from caudal import __version__
from caudal.cli import convert, generate, generate_words, jobs, render, serve
from caudal.cli.face import Face as _Face
from caudal.cli.face import Json
from caudal.cli.face import face as _face
from caudal.cli.progress import Live, heard
from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.core.units import parse_seconds
from caudal.runs.machine import settle
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec

app = typer.Typer(
    name="caudal",
    help=_("Train and run models on data larger than memory, inside a memory budget that is kept."),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Ram = Annotated[str | None, typer.Option(help=_("Bytes of memory that may be held, like 4GiB."))]
Vram = Annotated[str | None, typer.Option(help=_("Bytes of GPU memory that may be held."))]
Device = Annotated[str | None, typer.Option(help=_("auto, cuda or cpu; never a silent fallback."))]
Seed = Annotated[int | None, typer.Option(help=_("Number that all randomness comes from."))]
Masks = Annotated[list[str] | None, typer.Option(help=_("Folder of masks; one for each data folder."))]
Labels = Annotated[
    str | None, typer.Option(help=_("A CSV that says more of each file: label, group, split."))
]
Time = Annotated[
    str | None, typer.Option("--time", help=_("Ends after so long, like 90m, with a checkpoint."))
]
Out = Annotated[str | None, typer.Option("--out", "-o", help=_("Where to write."))]
TaskOrSpec = Annotated[str, typer.Argument(help=_("A task, or a spec file (.toml)."))]
Data = Annotated[
    list[str] | None, typer.Argument(help=_("Folders of images, CSV files; a folder or file of samples."))
]


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C ends at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _spec(what: str, data: list[str] | None, masks: list[str] | None, labels: str | None) -> RunSpec:
    from caudal.runs.verbs.plan import make_spec

    if what.endswith(".toml"):
        if data or masks or labels:
            raise UsageError(
                _("A spec file says what the data are, and data were given too."), _("Give one of the two.")
            )
        return RunSpec.from_toml(Path(what))
    if not data:
        raise UsageError(_("No data were given."), _("Give a folder of images after the task."))
    return make_spec(what, data, masks or [], labels)


def _finish(face: _Face, result: Result) -> None:
    face.console.print(render.result_table(result))
    face.end(result.model_dump(mode="json", exclude_none=True))


@app.command(help=_("What this machine has, what each meter sees, and what to mend."))
def doctor(as_json: Json = False) -> None:
    """See `runs/doctor/`."""
    from caudal.runs.doctor import examine

    with _face(as_json) as face:
        facts = examine()
        face.console.print(render.facts_table(facts))
        face.end({"facts": [fact.model_dump() for fact in facts]})


@app.command(help=_("Generated scenes: plan, train, predict, report, in about a minute."))
def demo(out: Out = None, ram: Ram = None, as_json: Json = False) -> None:
    """See `runs/verbs/demo.py`."""
    from caudal.runs.verbs.demo import demo as run_demo

    with _face(as_json) as face, _stopping() as stop, Live(face.console) as live:
        result = run_demo(out or "demo", ram=ram or "1GiB", listeners=[live], stop=stop)
    _finish(face, result)


def _plan_packing(face: _Face, data: list[str], ram: str | None) -> None:
    from caudal.runs.verbs.pack import pack as write_pack

    if len(data) != 1:
        raise UsageError(_("Packing is planned for one folder or file."), _("Name it after the word pack."))
    with heard(face.console) as listeners:
        result = write_pack(data[0], out="pack", ram=ram, estimate=True, listeners=listeners)
    _finish(face, result)


@app.command(help=_("What a run will hold and why, before anything of it is loaded."))
def plan(
    task: TaskOrSpec,
    data: Data = None,
    masks: Masks = None,
    labels: Labels = None,
    ram: Ram = None,
    vram: Vram = None,
    device: Device = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """See `runs/verbs/plan.py`, and `runs/verbs/pack.py` for the task `pack`."""
    from caudal.runs.verbs.plan import plan as make_plan

    with _face(as_json) as face:
        if task == "pack":
            _plan_packing(face, data or [], ram)
            return
        if task == "generation":
            imagined = generate_words.plan_published(data or [], ram, vram, device)
            face.console.print(generate.plan_card(imagined))
            face.end(generate.plan_values(imagined))
            return
        with Live(face.console) as live:
            spec = _spec(task, data, masks, labels)
            made = make_plan(spec, ram=ram, vram=vram, device=device, seed=seed, tick=live.tick)
        face.console.print(render.plan_card(made))
        if out:
            write_whole(Path(out), lambda part: part.write_text(made.spec.to_toml(), encoding="utf-8"))
        levers = {lever.name: lever.value for lever in made.memory.levers}
        face.end(
            {
                "verb": "plan",
                "output": out,
                "budget_bytes": made.memory.budget_bytes(),
                "predicted_bytes": made.memory.predicted_bytes(),
                "levers": levers,
                "samples_per_second": made.samples_per_second,
                "warnings": list(made.warnings),
                "plan": made.model_dump(mode="json"),
            }
        )


@app.command(help=_("Train a task on data, or a spec; an unfinished run goes on."))
def train(
    task: TaskOrSpec,
    data: Data = None,
    masks: Masks = None,
    labels: Labels = None,
    out: Out = None,
    ram: Ram = None,
    vram: Vram = None,
    device: Device = None,
    seed: Seed = None,
    time: Time = None,
    as_json: Json = False,
) -> None:
    """See `runs/verbs/train.py`."""
    with _face(as_json) as face:
        if out is None:
            raise UsageError(_("Where should the run go?"), _("Give a folder with -o."))
        if time:
            parse_seconds(time)  # the watcher keeps it; here it is only understood
        # The plan first: its probe runs in a child, and torch must not be held here twice meanwhile.
        from caudal.runs.machine import follows
        from caudal.runs.verbs.plan import resolve

        with _stopping() as stop, Live(face.console) as live:
            spec = _spec(task, data, masks, labels)
            made = None
            if not follows():
                made = resolve(out, spec, ram=ram, vram=vram, device=device, seed=seed, tick=live.tick)
                face.console.print(render.plan_card(made))
            from caudal.runs.verbs.train import train as run_training

            result = run_training(made or spec, out=out, device=device, listeners=[live], stop=stop)
        if not follows():
            _finish(face, result)


@app.command(help=_("Score a trained model on data whose truth is known."))
def evaluate(
    run: str,
    data: Annotated[list[str], typer.Argument(help=_("Folders of images, or CSV files."))],
    masks: Masks = None,
    labels: Labels = None,
    ram: Ram = None,
    vram: Vram = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """See `runs/verbs/evaluate.py`."""
    from caudal.runs.verbs.evaluate import evaluate as run_evaluation

    with _face(as_json) as face:
        with heard(face.console) as listeners:
            result = run_evaluation(
                run,
                list(data),
                masks=masks or (),
                labels=labels,
                ram=ram,
                vram=vram,
                device=device,
                listeners=listeners,
            )
        _finish(face, result)


@app.command(help=_("Say what a model sees in rasters, images or samples of any number, in flat memory."))
def predict(
    run: str,
    inputs: Annotated[list[str], typer.Argument(help=_("Rasters, images, or folders of them."))],
    out: Out = None,
    ram: Ram = None,
    vram: Vram = None,
    device: Device = None,
    scores: Annotated[bool, typer.Option(help=_("Write a probability for each class."))] = False,
    d4: Annotated[bool, typer.Option(help=_("Average over flips and turns; eight times the work."))] = False,
    exact: Annotated[bool, typer.Option(help=_("Tiles that equal the whole raster; more work."))] = False,
    as_json: Json = False,
) -> None:
    """See `runs/verbs/predict.py`."""
    from caudal.runs.verbs.predict import predict as run_prediction

    with _face(as_json) as face:
        if out is None:
            raise UsageError(_("Where should the map go?"), _("Give a file or a folder with -o."))
        with heard(face.console) as listeners:
            result = run_prediction(
                run,
                list(inputs),
                out=out,
                ram=ram,
                vram=vram,
                device=device,
                scores=scores,
                average_d4=d4,
                exact=exact,
                listeners=listeners,
            )
        _finish(face, result)


@app.command(help=_("Draw what in a picture speaks for the class that a model saw."))
def explain(
    run: str,
    images: Annotated[str, typer.Argument(help=_("A picture, or a folder of them."))],
    out: Out = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help=_("gradcam, hirescam, integrated_gradients, occlusion; may be repeated.")),
    ] = None,
    target: Annotated[str | None, typer.Option(help=_("The class to explain; else the one seen."))] = None,
    masks: Annotated[
        str | None, typer.Option(help=_("A mask for each picture: where the reason is."))
    ] = None,
    labels: Labels = None,
    most: Annotated[int, typer.Option(help=_("Pictures of a folder that are explained."))] = 12,
    ram: Ram = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """See `runs/verbs/explain.py`."""
    from caudal.runs.verbs.explain import explain as run_explanation

    with _face(as_json) as face:
        if out is None:
            raise UsageError(_("Where should the page go?"), _("Give a .html or a .png with -o."))
        with heard(face.console) as listeners:
            result = run_explanation(
                run,
                images,
                out=out,
                methods=method or (),
                target=target,
                masks=masks,
                labels=labels,
                most=most,
                ram=ram,
                device=device,
                listeners=listeners,
            )
        _finish(face, result)


@app.command(help=_("Copy samples once into files that are read without decoding."))
def pack(
    data: Annotated[str, typer.Argument(help=_("A folder or a file of samples."))],
    out: Out = None,
    ram: Ram = None,
    samples: Annotated[
        str, typer.Option(help=_("Whether a file of arrays is a sample: auto, file, rows."))
    ] = "auto",
    resize: Annotated[str | None, typer.Option(help=_("Size of pictures in pixels: HEIGHTxWIDTH."))] = None,
    shard: Annotated[str, typer.Option(help=_("Bytes of each file of the pack."))] = "256MiB",
    estimate: Annotated[
        bool, typer.Option(help=_("Say what it would take and bring; write nothing."))
    ] = False,
    as_json: Json = False,
) -> None:
    """See `runs/verbs/pack.py`."""
    from caudal.runs.verbs.pack import pack as write_pack

    with _face(as_json) as face:
        if out is None and not estimate:
            raise UsageError(_("Where should the pack go?"), _("Give a new folder with -o."))
        with heard(face.console) as listeners:
            result = write_pack(
                data,
                out=out or "pack",
                ram=ram,
                samples=_one_of(samples, ("auto", "file", "rows"), "--samples"),  # type: ignore[arg-type]
                resize=_size(resize),
                shard_bytes=shard,
                estimate=estimate,
                listeners=listeners,
            )
        _finish(face, result)


def _one_of(given: str, known: tuple[str, ...], flag: str) -> str:
    if given in known:
        return given
    raise UsageError(
        _("{flag} {given} is not known.").format(flag=flag, given=given),
        _("Use one of: {known}.").format(known=" ".join(known)),
    )


def _size(text: str | None) -> tuple[int, int] | None:
    """HEIGHTxWIDTH as numbers."""
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UsageError(_("“{text}” is no size.").format(text=text), _("Write it like 224x224."))
    return int(sides[0]), int(sides[1])


@app.command(help=_("Write the page of a run: promised and measured, curves, examples."))
def report(run: str, as_json: Json = False) -> None:
    """See `runs/verbs/report.py`."""
    from caudal.runs.verbs.report import report as write_report

    with _face(as_json) as face:
        path = write_report(run)
        face.console.print(str(path), soft_wrap=True)
        face.end({"verb": "report", "run": run, "output": str(path)})


generate.register(app, _face, _stopping, _finish)
convert.register(app, _face, _finish)


@app.command(help=_("The JSON Schema of a spec."))
def schema() -> None:
    """What `RunSpec` takes."""
    print(json.dumps(RunSpec.model_json_schema(), indent=2, ensure_ascii=False))


serve.register(app)
jobs.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help=_("Print the version."))
    ] = False,
) -> None:
    pass


def main() -> None:
    """The `caudal` command."""
    settle()
    run: Callable[[], None] = app
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(5)
    except BrokenPipeError:
        sys.exit(0)
