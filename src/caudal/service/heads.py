"""HTTP/1.1 as httptools reads it, with a bound on all that is sent beside a body.

The reader in C costs a fifth less processor time a request than the one in Python, but takes heads, and lines
after a body, without end.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MOST_BYTES = 32 * 1024
_A_BODY_BYTE = 9  # a body that comes in chunks of a byte brings so many


class BoundedHeads(HttpToolsProtocol):
    """Hangs up on a request that goes on for more than `MOST_BYTES` without a body that accounts for them.

    The piece in which a request begins is not counted: what was before it in there is another's.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._begins, self._beside = True, 0

    def data_received(self, data: bytes) -> None:
        """See the class."""
        super().data_received(data)
        if self._begins:
            self._begins = False
            return
        self._beside += len(data)
        if self._beside > MOST_BYTES and not self.transport.is_closing():
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.transport.write(STATUS_LINE[status] + b"connection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begins, self._beside = True, 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._beside -= _A_BODY_BYTE * len(body)
        super().on_body(body)
