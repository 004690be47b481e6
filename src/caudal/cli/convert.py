"""The verb `convert` on a terminal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from caudal.core.errors import UsageError
from caudal.core.messages import _


def register(app: typer.Typer, face_of: Any, finish: Any) -> None:
    """Add the verb to `app`; the rest is how `main` speaks and ends."""

    @app.command(help=_("Write weights of generation once as safetensors, in the type they are used in."))
    def convert(
        source: Annotated[str, typer.Argument(help=_("A model folder, or a file of weights."))],
        out: Annotated[str | None, typer.Option("--out", "-o", help=_("Where to write."))] = None,
        precision: Annotated[str, typer.Option("--precision", help=_("bf16, fp16 or fp32."))] = "bf16",
        as_json: Annotated[
            bool, typer.Option("--json", help=_("Print one JSON object as the last line."))
        ] = False,
    ) -> None:
        """See `runs/verbs/convert.py`."""
        with face_of(as_json) as face:
            if out is None:
                raise UsageError(_("Where should the weights go?"), _("Give a new name with -o."))
            from caudal.runs.verbs.convert import convert as run_conversion

            finish(face, run_conversion(source, out=out, precision=precision))
