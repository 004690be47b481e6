"""A file as an answer: whole, or the one range that was asked for (RFC 9110), in flat memory."""

from __future__ import annotations

import email.utils
import io
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from caudal.core.messages import _
from caudal.service.etags import matches
from caudal.service.problems import Refused

_PIECE_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


@dataclass(frozen=True)
class Span:
    """`count` bytes from `start`."""

    start: int
    count: int


def span_of(asked: str, size_bytes: int) -> Span | None:
    """The range that a header asks for; `None` means all of it: no range, several, or none that is one.

    Raises:
        Refused: 416, it begins past the end.
    """
    match = _RANGE.fullmatch(asked)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        count = min(int(match[2]), size_bytes)
        start, last = size_bytes - count, size_bytes - 1
    else:
        start = int(match[1])
        last = min(int(match[2]) if match[2] else size_bytes - 1, size_bytes - 1)
        if match[2] and int(match[2]) < start:
            return None
    if start > last:
        raise Refused(
            416,
            "range",
            _("The file has {size} bytes.").format(size=size_bytes),
            _("Ask for a range that is in it."),
            {"Content-Range": f"bytes */{size_bytes}"},
        )
    return Span(start, last - start + 1)


def file_answer(
    request: Request,
    handle: int,
    media_type: str,
    name: str = "",
    size_bytes: int | None = None,
    about: os.stat_result | None = None,
) -> Response:
    """What an open file holds; closes it. `size_bytes` bounds what is given of a file that still grows.

    `about` is that of the file which this one was made of: as long as it is the same, so is this.

    Raises:
        Refused: 416.
    """
    own = os.fstat(handle)
    about = about or own
    size = own.st_size if size_bytes is None else min(size_bytes, own.st_size)
    tag = f'"{about.st_mtime_ns:x}-{size:x}-{about.st_ino:x}"'
    headers = {
        "etag": tag,
        "accept-ranges": "bytes",
        "last-modified": email.utils.formatdate(about.st_mtime, usegmt=True),
    }
    if name:
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{_quoted(name)}"
    if matches(request.headers.get("if-none-match", ""), tag):
        os.close(handle)
        return Response(status_code=304, headers=headers)
    if_range = request.headers.get("if-range")
    asked = request.headers.get("range", "") if if_range in (None, tag) else ""
    try:
        span = span_of(asked, size)
    except Refused:
        os.close(handle)
        raise
    if span is not None:
        headers["content-range"] = f"bytes {span.start}-{span.start + span.count - 1}/{size}"
    part = span or Span(0, size)
    headers["content-length"] = str(part.count)
    file = os.fdopen(handle, "rb", buffering=0)  # closed with the answer, however that ends
    return StreamingResponse(_pieces(file, part), 206 if span else 200, headers, media_type)


async def _pieces(file: io.FileIO, part: Span) -> AsyncIterator[bytes]:
    place, left = part.start, part.count
    with file:
        while left:
            piece = await anyio.to_thread.run_sync(os.pread, file.fileno(), min(left, _PIECE_BYTES), place)
            if not piece:  # it became shorter; the connection ends, so that nobody takes it for whole
                raise ConnectionError("the file became shorter")
            place += len(piece)
            left -= len(piece)
            yield piece


def _quoted(name: str) -> str:
    return quote(name.rpartition("/")[2], safe="")
