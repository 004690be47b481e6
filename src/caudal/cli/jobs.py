"""`caudal jobs …`: what the service does, asked for from a terminal; an exit code for how a job ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from caudal.cli.exits import DATA, DOES_NOT_FIT, DONE, INTERRUPTED, MEMORY, OTHER, TIME
from caudal.cli.face import Face, Json, face
from caudal.client import Client, Job
from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes, parse_seconds
from caudal.service.work import VERBS

_ID_LETTERS = 26
_SECTIONS = ("model", "training", "split", "augmentation")
_TAKES: dict[str, tuple[str, ...]] = {
    "train": ("task", "masks", "labels", "spec", "plan", "vram", "seed", "device"),
    "predict": ("run", "scores", "vram", "device"),
    "evaluate": ("run", "masks", "labels", "vram", "device"),
    "explain": ("run", "masks", "labels", "method", "device"),
    "pack": (),
    "generate": ("identity", "prompt", "count", "steps", "vram", "seed", "device"),
}
"""Of each verb, the options that it takes beside those of every job."""
_CODES = {
    "oom_host": MEMORY,
    "oom_device": MEMORY,
    "oom_shm": MEMORY,
    "does_not_fit": DOES_NOT_FIT,
    "timeout": TIME,
    "data": DATA,
}
_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
    "running": "bold",
    "unreachable": "yellow",
}

group = typer.Typer(
    name="jobs",
    help=_("Jobs of a service: submit, list, show, logs, cancel, retry."),
    no_args_is_help=True,
)
Id = Annotated[str, typer.Argument(help=_("The id of a job."))]
Url = Annotated[
    str | None, typer.Option("--url", help=_("Where the service is; else CAUDAL_URL, or this machine."))
]
Wait = Annotated[bool, typer.Option("--wait", help=_("Until it has ended; then the exit code says how."))]


@group.command(help=_("Put a job in line: train, predict, evaluate, explain, pack or generate."))
def submit(
    verb: Annotated[str, typer.Argument(help=_("train, predict, evaluate, explain, pack or generate."))],
    data: Annotated[
        str | None, typer.Argument(help=_("A data set's id, or a place in one of the service's roots."))
    ] = None,
    identity: Annotated[
        list[str] | None, typer.Option(help=_("Pictures of faces, for generate: ids or places."))
    ] = None,
    prompt: Annotated[str | None, typer.Option(help=_("What the pictures show."))] = None,
    count: Annotated[int | None, typer.Option(help=_("So many pictures."))] = None,
    steps: Annotated[int | None, typer.Option(help=_("Steps from noise to a picture."))] = None,
    task: Annotated[str | None, typer.Option(help=_("What is learned; for train."))] = None,
    run: Annotated[str | None, typer.Option(help=_("Id of the run whose model is used."))] = None,
    masks: Annotated[str | None, typer.Option(help=_("Masks: an id or a place, too."))] = None,
    labels: Annotated[str | None, typer.Option(help=_("A table of labels: an id or a place, too."))] = None,
    file: Annotated[str | None, typer.Option(help=_("One file or folder of the data set."))] = None,
    plan: Annotated[
        str | None, typer.Option(help=_("Id of a plan of the service to train by, without DATA."))
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help=_("Scores of each class, too; for predict."))
    ] = False,
    method: Annotated[list[str] | None, typer.Option(help=_("A way to explain; may be repeated."))] = None,
    spec: Annotated[
        Path | None, typer.Option(help=_("A spec whose sections are taken, but for data."))
    ] = None,
    ram: Annotated[str | None, typer.Option(help=_("Bytes of memory that may be held, like 4GiB."))] = None,
    vram: Annotated[str | None, typer.Option(help=_("Bytes of GPU memory that may be held."))] = None,
    device: Annotated[str | None, typer.Option(help=_("auto, cuda or cpu; never a silent fallback."))] = None,
    seed: Annotated[int | None, typer.Option(help=_("Number that all randomness comes from."))] = None,
    name: Annotated[str | None, typer.Option(help=_("What it is called."))] = None,
    project: Annotated[str | None, typer.Option(help=_("Id of the project that it belongs to."))] = None,
    priority: Annotated[int, typer.Option(help=_("From -10 to 10; higher ones first."))] = 0,
    time: Annotated[str | None, typer.Option("--time", help=_("Ends after so long, like 90m."))] = None,
    key: Annotated[str | None, typer.Option(help=_("The same key again is the same job."))] = None,
    wait: Wait = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """See `POST /api/v1/jobs`."""
    with face(as_json) as shown, Client(url) as client:
        if verb not in VERBS:
            raise UsageError(
                _("“{verb}” is no verb of a job.").format(verb=verb),
                _("Use one of: {verbs}.").format(verbs=", ".join(VERBS)),
            )
        given = {
            "task": task, "run": run, "masks": masks, "labels": labels, "spec": spec, "vram": vram,
            "seed": seed, "plan": plan, "scores": scores or None, "method": method, "identity": identity,
            "prompt": prompt, "count": count, "steps": steps, "device": device,
        }  # fmt: skip
        for option in (one for one, value in given.items() if value is not None and one not in _TAKES[verb]):
            raise UsageError(
                _("--{option} is nothing for {verb}.").format(option=option, verb=verb),
                _("It takes: {options}.").format(options=" ".join(f"--{one}" for one in _TAKES[verb]) or "—"),
            )
        if (data is None) == (plan is None) or (plan is not None and verb != "train"):
            raise UsageError(
                _("A job needs data, or a plan for a training, and not both."),
                _("Write: caudal jobs submit VERB DATA, or caudal jobs submit train --plan ID."),
            )
        order: dict[str, Any] = {
            "verb": verb,
            "name": name,
            "project": project,
            "priority": priority,
            "limit_seconds": parse_seconds(time) if time else None,
            "ram": _size(ram),
            "vram": _size(vram),
            "device": device,
        }
        where: dict[str, Any] | None = None
        if data is not None:
            where = {"dataset": _dataset(client, data)} | ({"file": file} if file else {})
        truth = {
            kind: {"dataset": _dataset(client, text)} if text else None
            for kind, text in (("masks", masks), ("labels", labels))
        }
        if verb == "train":
            order |= {"task": task, "data": where, **truth, "plan": plan, "seed": seed}
            order |= {"spec": _sections(spec)} if spec else {}
        elif verb == "predict":
            order |= {"run": run, "inputs": [where], "scores": scores or None}
        elif verb == "generate":
            people = [{"dataset": _dataset(client, face)} for face in identity or ()]
            order |= {"model": where, "people": people, "prompt": prompt or ""}
            order |= {"count": count, "steps": steps, "seed": seed}
        elif verb == "explain":
            order |= {"run": run, "images": where, **truth, "method": list(method) if method else None}
        elif verb == "evaluate":
            order |= {"run": run, "data": where, **truth}
        else:
            order |= {"data": where}
        job = client.submit(order, key)
        _end(shown, client.wait(job.id) if wait else job, wait)


@group.command("list", help=_("Jobs, the newest first."))
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help=_("Only those; may be repeated."))] = None,
    most: Annotated[int, typer.Option(help=_("So many."))] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """See `GET /api/v1/jobs`."""
    with face(as_json) as shown, Client(url) as client:
        found: list[Job] = []
        for job in client.jobs(*(state or ())):
            if len(found) >= most:
                break
            found.append(job)
        table = Table(box=None, pad_edge=False)
        for title in (_("id"), _("verb"), _("state"), _("tries"), _("name")):
            table.add_column(title)
        for job in found:
            table.add_row(job.id, job.verb, _state(job), str(job.attempts), job.name)
        shown.console.print(table)
        shown.end({"verb": "jobs", "jobs": [job.model_dump(mode="json") for job in found]})


@group.command(help=_("One job: its state, why, and what happens next."))
def show(job_id: Id, wait: Wait = False, url: Url = None, as_json: Json = False) -> None:
    """See `GET /api/v1/jobs/{id}`."""
    with face(as_json) as shown, Client(url) as client:
        job = client.wait(job_id) if wait else client.job(job_id)
        _end(shown, job, wait)


@group.command(help=_("What a job wrote to its log."))
def logs(
    job_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=_("Go on until it has ended."))] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """See `GET /api/v1/jobs/{id}/log`."""
    with face(as_json) as shown, Client(url) as client:
        seen = 0
        out = sys.stderr if as_json else sys.stdout
        while True:
            ended = client.wait(job_id, 0 if not follow or not seen else 2.0).has_ended
            piece = client.log(job_id, seen)
            seen += len(piece)
            out.write(piece.decode("utf-8", "replace"))
            out.flush()
            if not follow or (ended and not piece):
                break
        shown.end({"verb": "jobs", "job": job_id, "bytes": seen})


@group.command(help=_("Ask a job to end: it writes a checkpoint first, if it can."))
def cancel(job_id: Id, wait: Wait = False, url: Url = None, as_json: Json = False) -> None:
    """See `POST /api/v1/jobs/{id}/cancel`."""
    with face(as_json) as shown, Client(url) as client:
        job = client.cancel(job_id)
        _end(shown, client.wait(job_id) if wait else job, False)


@group.command(help=_("Try a job again that failed or was cancelled, from its last checkpoint."))
def retry(
    job_id: Id,
    smaller: Annotated[bool, typer.Option("--smaller", help=_("On a plan that holds less."))] = False,
    wait: Wait = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """See `POST /api/v1/jobs/{id}/retry`."""
    with face(as_json) as shown, Client(url) as client:
        job = client.retry(job_id, smaller)
        _end(shown, client.wait(job_id) if wait else job, wait)


def ending(job: Job) -> int:
    """The exit code for how a job ended."""
    if job.state == "failed":
        return _CODES.get(job.reason or "", OTHER)
    return INTERRUPTED if job.state == "cancelled" else DONE


def _end(shown: Face, job: Job, tells_how: bool) -> None:
    shown.console.print(_card(job))
    shown.end({"verb": "jobs", "job": job.model_dump(mode="json")})
    if tells_how and ending(job):
        raise typer.Exit(ending(job))


def _card(job: Job) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_row(_("id"), Text(job.id, style="bold"))
    state = _state(job) + Text(f" · {job.reason}" if job.reason else "")
    table.add_row(_("state"), state)
    if job.error:
        table.add_row("", Text(job.error.message))
        table.add_row("", Text(f"→ {job.error.hint}", style="dim") if job.error.hint else "")
    if job.next and not (job.error and job.error.hint):
        table.add_row(_("next"), job.next)
    if job.peak_bytes.get("ram"):
        table.add_row(_("peak"), str(Bytes(job.peak_bytes["ram"])))
    for key, value in ((job.result or {}).get("metrics") or {}).items():
        table.add_row(key, "—" if value is None else f"{value:.4g}")
    if job.run:
        table.add_row(_("run"), job.run)
    return Panel(Group(table), title=f"{job.verb} {job.name}".strip(), title_align="left")


def _state(job: Job) -> Text:
    return Text(job.state, style=_STYLES.get(job.state, ""))


def _size(text: str | None) -> int | None:
    return int(Bytes.parse(text)) if text else None


def _dataset(client: Client, text: str) -> str:
    """Its id: given, or of the data set at that place, which is registered if it is not yet."""
    if len(text) == _ID_LETTERS and text.isalnum() and text.islower():
        return text
    here = Path(text).expanduser()
    place = str(here.absolute()) if here.exists() else text
    if (registered := next(client.datasets(place), None)) is not None:
        return registered.id
    name = place.replace("\\", "/").rstrip("/").rpartition("/")[2] or "data"
    known = {dataset.name for dataset in client.datasets()}
    made = name
    number = 2
    while made in known:
        made, number = f"{name} {number}", number + 1
    return client.create_dataset(made, place).id


def _sections(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            _("{path} is not a spec that can be read: {why}.").format(path=path, why=error),
            _("Write one with `caudal plan … -o spec.toml`."),
        ) from None
    kept: dict[str, Any] = {name: values[name] for name in _SECTIONS if name in values}
    data = {k: v for k, v in values.get("data", {}).items() if k not in ("images", "masks", "labels")}
    return {**kept, "data": data}


def register(app: typer.Typer) -> None:
    """Make it a verb with verbs of its own."""
    app.add_typer(group)
