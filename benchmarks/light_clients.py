"""Many clients of a server in one thread: they ask for an address again and again, or listen to events.

What it costs to be a client would else be counted as the server's, where both share two processors: a client
of a library takes milliseconds for an answer, this one some tens of microseconds.
"""

from __future__ import annotations

import heapq
import re
import selectors
import socket
import time
from dataclasses import dataclass, field

_ID = re.compile(rb"^id: (\d+)", re.MULTILINE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_AT_ONCE = 1 << 16


@dataclass
class Felt:
    """What the clients saw: seconds of each answer, how many were none or not 200, ids that each heard."""

    answers: list[float] = field(default_factory=list)
    failed: int = 0
    seen: list[list[int]] = field(default_factory=list)


@dataclass
class _Client:
    line: socket.socket
    request: bytes
    listens: list[int] | None = None
    asked: float = 0.0  # 0 while nothing is awaited
    got: bytes = b""


def load(
    address: tuple[str, int],
    poll: bytes,
    listen: bytes,
    *,
    polls: int,
    streams: int,
    pause: float,
    seconds: float,
) -> Felt:
    """Let `polls` clients send the request `poll`, each `pause` seconds after its last answer, and `streams`
    clients send `listen` once and read; for `seconds`.
    """
    felt, waiting = Felt(), selectors.DefaultSelector()
    now = time.monotonic()
    until, due = now + seconds, list[tuple[float, int, _Client]]()
    clients = [_Client(_connected(address), poll) for _n in range(polls)]
    for n, client in enumerate(clients):
        heapq.heappush(due, (now + pause * n / max(1, polls), n, client))
    for _n in range(streams):
        felt.seen.append([])
        clients.append(_Client(_connected(address), listen, felt.seen[-1]))
        clients[-1].line.sendall(listen)
    for client in clients:
        waiting.register(client.line, selectors.EVENT_READ, client)
    while (now := time.monotonic()) < until:
        while due and due[0][0] <= now:
            _due, _number, client = heapq.heappop(due)
            client.asked = time.monotonic()
            client.line.sendall(client.request)
        ready = waiting.select(max(0.0, min(until, due[0][0] if due else until) - time.monotonic()))
        for key, _mask in ready:
            client = key.data
            data = client.line.recv(_AT_ONCE)
            if not data:
                felt.failed += 1
                waiting.unregister(client.line)
            elif client.listens is not None:
                _hear(client, data)
            elif _is_whole(client, data):
                now = time.monotonic()
                felt.answers.append(now - client.asked)
                felt.failed += not client.got.startswith(b"HTTP/1.1 200 ")
                client.asked, client.got = 0.0, b""
                heapq.heappush(due, (now + pause, id(client), client))
    felt.answers += [until - client.asked for client in clients if client.asked]  # still unanswered
    for client in clients:
        client.line.close()
    waiting.close()
    return felt


def _connected(address: tuple[str, int]) -> socket.socket:
    line = socket.create_connection(address)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _hear(client: _Client, data: bytes) -> None:
    assert client.listens is not None
    data = client.got + data
    whole = data.rfind(b"\n") + 1  # a line that is cut is kept until the rest of it has come
    client.listens.extend(int(found) for found in _ID.findall(data, 0, whole))
    client.got = data[whole:]


def _is_whole(client: _Client, data: bytes) -> bool:
    client.got += data
    head = client.got.find(b"\r\n\r\n")
    length = _LENGTH.search(client.got, 0, head + 2) if head >= 0 else None
    return length is not None and len(client.got) >= head + 4 + int(length.group(1))
