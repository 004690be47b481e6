"""Long lists, a page at a time. A cursor says where the last one ended; no client reads it."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from fastapi import Query, Request, Response
from pydantic import BaseModel

from caudal.core.messages import _
from caudal.service.ids import is_id
from caudal.service.problems import Refused

T = TypeVar("T")
_LONGEST = 1500


class Page(BaseModel, Generic[T]):
    """Some of a list. `next` is the cursor of what follows, `null` at the end."""

    items: list[T]
    next: str | None


Limit = Annotated[int, Query(ge=1, le=200, description="Items on a page")]
Cursor = Annotated[
    str, Query(max_length=_LONGEST, pattern=r"^[A-Za-z0-9_-]*$", description="`next` of the page before")
]


def cursor_of(value: str | int) -> str:
    """The cursor behind which a list goes on."""
    return base64.urlsafe_b64encode(str(value).encode()).rstrip(b"=").decode()


def text_of(cursor: str) -> str:
    """What `cursor_of` was given; empty for the beginning.

    Raises:
        Refused: 422, it is none of ours.
    """
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _wrong() from None


def id_of(cursor: str) -> str:
    """The same, where lists go on behind an id."""
    text = text_of(cursor)
    if text and not is_id(text):
        raise _wrong()
    return text


def number_of(cursor: str) -> int | None:
    """The same, where lists go on behind a number; `None` for the beginning."""
    text = text_of(cursor)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _wrong()
    return int(text)


def _wrong() -> Refused:
    return Refused(422, "cursor", _("This cursor is none of ours."), _("Take the “next” of a page as it is."))


def paged(
    request: Request, response: Response, items: list[T], limit: int, next_value: str | int | None
) -> Page[T]:
    """A page, and the header Link to the next one. A page that is not full is the last."""
    cursor = cursor_of(next_value) if next_value is not None and len(items) >= limit else None
    if cursor is not None:
        address = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{address.path}?{address.query}>; rel="next"'
    return Page(items=items, next=cursor)
