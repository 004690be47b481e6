"""Where a verb speaks: to people, or one JSON object as the last line; and errors as exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from caudal.cli import render
from caudal.cli.exits import exit_code
from caudal.core.errors import CaudalError, to_record
from caudal.core.messages import _

Json = Annotated[bool, typer.Option("--json", help=_("Print one JSON object as the last line."))]


class Face:
    """Where words go: to standard error when standard output is kept for JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)

    def end(self, values: dict[str, Any]) -> None:
        """The last line."""
        if self.as_json:
            print(json.dumps(values, ensure_ascii=False), flush=True)


@contextmanager
def face(as_json: bool) -> Iterator[Face]:
    """Errors that a user can act upon become two lines and an exit code."""
    shown = Face(as_json)
    try:
        yield shown
    except CaudalError as error:
        render.show_error(Console(stderr=True, highlight=False), error)
        shown.end({"error": to_record(error)})
        raise typer.Exit(exit_code(error)) from None
