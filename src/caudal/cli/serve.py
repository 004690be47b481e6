"""`caudal serve` and `caudal worker`: flags and a settings file become the records of the service."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from caudal.cli.face import Json, face
from caudal.core.errors import UsageError
from caudal.core.messages import _

Home = Annotated[
    Path | None, typer.Option(help=_("Folder for state: jobs, uploads, database."), envvar="CAUDAL_HOME")
]
Database = Annotated[
    str | None,
    typer.Option(
        help=_("postgresql://…; else SQLite in the state folder."),
        envvar="CAUDAL_DATABASE",
        show_envvar=False,
    ),
]
Queue = Annotated[str | None, typer.Option(help=_("embedded, or celery."), envvar="CAUDAL_QUEUE")]
Broker = Annotated[
    str | None,
    typer.Option(help=_("redis://…, for Celery."), envvar="CAUDAL_BROKER", show_envvar=False),
]
Ram = Annotated[str | None, typer.Option(help=_("What all jobs of this machine may hold together."))]
Vram = Annotated[str | None, typer.Option(help=_("The same of its GPU."))]
File = Annotated[
    Path | None,
    typer.Option("--settings", help=_("A TOML file with all that can be set."), envvar="CAUDAL_SETTINGS"),
]
Root = Annotated[list[str] | None, typer.Option(help=_("NAME=FOLDER that data may be in; may be repeated."))]


_SECRETS = ("database", "broker")


def serve(
    host: Annotated[str | None, typer.Option(help=_("Address to listen on."))] = None,
    port: Annotated[int | None, typer.Option(help=_("Port; 0 for any that is free."))] = None,
    name: Annotated[
        list[str] | None, typer.Option(help=_("Further name of this server; may be repeated."))
    ] = None,
    root: Root = None,
    home: Home = None,
    database: Database = None,
    queue: Queue = None,
    broker: Broker = None,
    ram: Ram = None,
    vram: Vram = None,
    settings: File = None,
    worker: Annotated[bool, typer.Option(help=_("Run jobs on this machine."))] = True,
    as_json: Json = False,
) -> None:
    """See `service/server.py`."""
    with face(as_json) as shown:
        _installed()
        from caudal.service.server import run_server
        from caudal.service.serving import Serving
        from caudal.service.settings import Settings

        given = _file(settings)
        flags = _flags(home=home, database=database, queue=queue, broker=broker, ram=ram, vram=vram)
        web = given.get("serving", {})
        roots = {**web.get("roots", {}), **_roots(root or [])}
        names = [*web.get("names", []), *(name or [])]
        serving = Serving.make({**web, **_flags(host=host, port=port), "roots": roots, "names": names})
        kept = Settings.make({**given.get("service", {}), **flags})

        def ready(url: str, token: str) -> None:
            # What is no terminal may be a log, and a token is for nobody who reads logs.
            full = f"{url}/?token={token}" if sys.stdout.isatty() else url
            shown.console.print(_("Caudal serves at {url}").format(url=full), soft_wrap=True)
            shown.console.print(_("The token is in {path}").format(path=kept.home / "token"), soft_wrap=True)
            shown.end({"verb": "serve", "url": url, "token_file": str(kept.home / "token")})

        run_server(kept, serving, ready, worker)


def worker(
    home: Home = None,
    database: Database = None,
    queue: Queue = None,
    broker: Broker = None,
    ram: Ram = None,
    vram: Vram = None,
    settings: File = None,
    check: Annotated[
        bool, typer.Option("--check", help=_("Take none: say whether this machine's worker is heard of."))
    ] = False,
    as_json: Json = False,
) -> None:
    """See `service/worker.py`."""
    with face(as_json) as shown:
        _installed()
        from caudal.service.settings import Settings
        from caudal.service.worker import check_worker, run_worker

        flags = _flags(home=home, database=database, queue=queue, broker=broker, ram=ram, vram=vram)
        kept = Settings.make({**_file(settings).get("service", {}), **flags})
        if check:
            check_worker(kept)
        code = 0 if check else run_worker(kept)
        shown.end({"verb": "worker"})
        raise typer.Exit(code)


def _flags(**given: Any) -> dict[str, Any]:
    for key in _SECRETS:  # containers hand secrets over in files
        path = os.environ.get(f"CAUDAL_{key.upper()}_FILE")
        if path and key in given and given[key] is None:
            given[key] = _secret(Path(path))
    return {key: value for key, value in given.items() if value is not None}


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            _("{path} cannot be read: {why}.").format(path=path, why=error), _("Check its permissions.")
        ) from None


def _roots(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                _("--root {word} is not understood.").format(word=word), _("Write it as --root NAME=FOLDER.")
            )
        found[name] = str(Path(folder).expanduser().absolute())
    return found


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            _("{path} cannot be read: {why}.").format(path=path, why=error),
            _("Give a TOML file with the sections [service] and [serving]."),
        ) from None
    if unknown := sorted(set(values) - {"service", "serving"}):
        raise UsageError(
            _("{path}: there is no section [{section}].").format(path=path, section=unknown[0]),
            _("Its sections are [service] and [serving]."),
        )
    return values


def _installed() -> None:
    try:
        import fastapi  # noqa: F401 - whether it is there is all that is asked, here and below
        import sqlalchemy  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UsageError(
            _("The service is not installed."), _('Install it: pip install "caudal[service]".')
        ) from None


def register(app: typer.Typer) -> None:
    """Make them verbs."""
    app.command(help=_("Serve jobs over HTTP: one command, on this machine alone unless told otherwise."))(
        serve
    )
    app.command(help=_("Take jobs of a service, on one more machine."))(worker)
