"""Texts of runs as they are shown: with the names of roots where the server's folders stand.

A range is one of the text that is shown. So that what was shown once stays as it is while a file grows, the
line that is being written is not shown before it has ended.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath

from starlette.requests import Request
from starlette.responses import Response

from caudal.service.places import Veil
from caudal.service.ranges import file_answer

_TEXTS = (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".toml", ".txt", ".xml")
_GROWING = (".jsonl", ".log", ".txt")
_LONGEST_LINE = 2**24  # what is longer is taken in pieces


def is_text(name: str) -> bool:
    """Whether a file of that name may say where things are."""
    return PurePosixPath(name).suffix.lower() in _TEXTS


def grows(name: str) -> bool:
    """Whether a file of that name is written line by line while a job runs."""
    return PurePosixPath(name).suffix.lower() in _GROWING


def text_answer(
    request: Request,
    handle: int,
    media_type: str,
    veil: Veil,
    scratch: Path,
    lines_alone: bool,
    name: str = "",
) -> Response:
    """What an open text holds, veiled; closes it. With `lines_alone` only lines that have ended.

    `scratch` is a folder for what nobody sees.

    Raises:
        Refused: 416.
    """
    about = os.fstat(handle)
    with os.fdopen(handle, "rb") as source, tempfile.TemporaryFile(dir=scratch) as shown:
        left = about.st_size  # as it is now: the tag says so
        while left > 0 and (line := source.readline(min(_LONGEST_LINE, left))):
            left -= len(line)
            if lines_alone and not line.endswith(b"\n"):
                break
            shown.write(veil(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"))
        shown.flush()
        return file_answer(request, os.dup(shown.fileno()), media_type, name, about=about)
