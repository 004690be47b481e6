"""What a child process writes, read with a limit of time: a child may be as hostile as what it was given."""

from __future__ import annotations

import os
import selectors
import time
from typing import IO

_PIECE_BYTES = 2**20


def piece_of(stream: IO[bytes] | None, until: float) -> bytes:
    """What is there next, at most a mebibyte; waits for it until `until`, of the monotonic clock.

    Raises:
        TimeoutError: nothing came in time.
        EOFError: nothing more will come.
    """
    assert stream is not None
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if not selector.select(max(0.0, until - time.monotonic())):
            raise TimeoutError
    piece = os.read(stream.fileno(), _PIECE_BYTES)
    if not piece:
        raise EOFError
    return piece
