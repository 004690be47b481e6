"""What is sent beside a body is bounded, in whatever pieces it comes; bodies are not counted with it."""

from __future__ import annotations

import asyncio

import pytest

from caudal.service.heads import MOST_BYTES, BoundedHeads

PIECE = 4096


class _Line(asyncio.Transport):
    """What the protocol writes; closed when it hangs up."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _sent(pieces: list[bytes]) -> tuple[_Line, int]:
    """The line after `pieces`, and the bytes of body that came through."""
    taken = [0]

    async def app(_scope: object, receive: object, send: object) -> None:
        more = True
        while more:
            message = await receive()  # type: ignore[operator]
            taken[0] += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    async def run() -> _Line:
        import uvicorn
        from uvicorn.server import ServerState

        config = uvicorn.Config(app, http=BoundedHeads, lifespan="off", log_config=None)  # type: ignore[arg-type]
        config.load()
        line, protocol = _Line(), BoundedHeads(config, ServerState(), {})
        protocol.connection_made(line)
        for piece in pieces:
            if line.closed:
                break
            protocol.data_received(piece)
            await asyncio.sleep(0)
        for _turn in range(20):
            await asyncio.sleep(0)
        if protocol.timeout_keep_alive_task is not None:
            protocol.timeout_keep_alive_task.cancel()
        return line

    return asyncio.run(run()), taken[0]


def _cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


@pytest.mark.parametrize(
    "line", [b"GET /%s HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n"]
)
def test_a_head_without_end_is_hung_up_on(line: bytes) -> None:
    """Before three times as much was taken."""
    ended, _taken = _sent(_cut(line % (b"a" * (3 * MOST_BYTES)), PIECE))
    assert ended.closed
    assert ended.written.startswith(b"HTTP/1.1 431 ")


def test_lines_after_a_body_are_bounded_too() -> None:
    """Trailers are read by the same reader, and kept."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    ended, _taken = _sent([head, *_cut(b"X: " + b"a" * (3 * MOST_BYTES), PIECE)])
    assert ended.closed


@pytest.mark.parametrize("size", [1, 7, PIECE])
def test_a_body_of_any_size_in_any_chunks_is_taken(size: int) -> None:
    """Chunks of a byte bring five bytes beside each."""
    body = b"b" * (2 * MOST_BYTES)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _cut(body, size)) + b"0\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    ended, taken = _sent([head, *_cut(chunks, PIECE)])
    assert not ended.closed
    assert ended.written.startswith(b"HTTP/1.1 204 ")
    assert taken == len(body)


def test_many_requests_on_one_line_are_counted_one_by_one() -> None:
    """A line that is kept alive is not hung up on for what it asked before."""
    one = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"a" * (MOST_BYTES // 2))
    ended, _taken = _sent([piece for _n in range(8) for piece in _cut(one, PIECE)])
    assert not ended.closed
    assert ended.written.count(b"HTTP/1.1 204 ") == 8
