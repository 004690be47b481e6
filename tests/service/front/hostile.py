"""Inputs that mean harm: paths, ids, headers, JSON, ranges, event ids, addresses, tiles, bodies. Seeded."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from tests.service.front import hostile_files

_PARTS = [
    "..",
    ".",
    "",
    "%2e%2e",
    "%252e%252e",
    "..%2f",
    "..\\",
    "\\\\host\\share",
    "C:\\",
    "/etc/passwd",
    "~root",
    "secret.csv",
    "link.csv",
    "out",
    "\0",
    "%00",
    "a" * 300,
    "ñ",
    "‮",
    "\u2215etc",
    "file:///etc/passwd",
    "/vsicurl/http://127.0.0.1/",
    "/vsizip/a.zip",
    "/proc/self/environ",
    "aux",
    "a.csv::$DATA",
    "${HOME}",
    "`id`",
    "'; DROP TABLE jobs;--",
    "{{7*7}}",
    "<script>",
    "\r\nSet-Cookie: a=b",
]
_NUMBERS = [
    "-1",
    "0",
    "1e309",
    "NaN",
    "9" * 40,
    "0x10",
    "١",
    "1_000",
    "",
    " 1",
    "2147483648",
    "-9223372036854775809",
]
_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    "",
    "a" * 5000,
    "\0",
    "\ud800",
    [],
    {},
    [[[[]]]],
    {"$ref": "x"},
    "../..",
    "/etc",
    {"__class__": "x"},
    [1] * 2000,
    "nan",
    "١٢",
    "2024-01-01",
    "' OR 1=1 --",
    {"a": {"b": {"c": {}}}},
]
EACH_BOMB = 25
"""Every so many requests one is a bomb: they cost the most."""
_ADDRESSES = [
    "/api/v1/datasets/{id}/files/{name}",
    "/api/v1/runs/{id}/files/{name}",
    "/api/v1/jobs/{any}",
    "/api/v1/jobs/{id}/events",
    "/api/v1/jobs/{id}/log",
    "/api/v1/rasters/{any}",
    "/api/v1/plans/{any}",
    "/api/v1/rasters/{any}/tiles/{number}/{number}/{number}",
    "/api/v1/{name}",
    "/{name}",
    "/api/v1/keys/{any}",
    "/api/v1/datasets/{any}/files",
    "/api/v1/projects/{any}",
    "/?token={any}",
    "/api/v1/jobs?cursor={any}&limit={number}",
]


REMOTE_HOSTS = ("localhost", "127.0.0.1", "::1", "0x7f.1", "2130706433", "::ffff:7f00:1", "169.254.169.254")
"""Hosts that a service may name, and that must not be asked all the same: they are private."""
_WEB = [
    "http://{host}/",
    "http://{host}/secret.csv",
    "https://{host}:{port}/secret.csv",
    "http://{host}:{port}/secret.csv",
    "http://{host}:80/secret.csv",
    "http://user:word@{host}/",
    "http://elsewhere.invalid@{host}:{port}/",
    "http://{host}:{port}@elsewhere.invalid/",
    "http://{host}#@elsewhere.invalid/",
    "http://{host}\\@elsewhere.invalid/",
    "HTTP://{host}.:80/",
    "http://{host}:99999/",
    "http://{host}:-1/",
    "//{host}/secret.csv",
    "file://{host}/etc/passwd",
    "file:///etc/passwd",
    "gopher://{host}:{port}/_GET",
    "ftp://{host}/",
    "http://[{host}]/",
    "http://{host}%00.invalid/",
    "http:/\t/{host}/",
]
_SERVERS = [
    *REMOTE_HOSTS,
    "[::1]",
    "[::ffff:127.0.0.1]",
    "１２７.0.0.1",
    "127.1",
    "0",
    "",
    "a" * 300,
    "ñ",
    "..",
    "*",
]
_EVENT_IDS = [*_NUMBERS, "1", "7", "9" * 18, "9" * 19, "١٢", "1,2", "1;retry=0", "-", "0" * 18, "0" * 5000]
_RANGES = [
    "0,1",
    "0,255",
    "1,0",
    "nan,nan",
    "-inf,inf",
    "1e309,2",
    "0",
    "0,1,2",
    ",",
    "a,b",
    "0,1e-300",
    "1e31,1e32",
]


class Hostile:
    """Requests as (method, address, headers, body).

    `ids` are a data set that is only read, one that takes files, and a job; `rasters` are ids of real ones,
    `port` is one of loopback that a fetch must not reach.
    """

    def __init__(self, seed: int, ids: list[str], rasters: list[str], port: int) -> None:
        self._draw = random.Random(seed)
        self._ids, self._rasters, self._port = ids, list(rasters), port

    def requests(self, count: int) -> Iterator[tuple[str, str, dict[str, str], bytes | None]]:
        """So many."""
        kinds = [
            self._path, self._header, self._json, self._file, self._archive, self._range, self._stream,
            self._fetch, self._tile,
        ]  # fmt: skip
        for number in range(count):
            yield self._bomb() if number % EACH_BOMB == EACH_BOMB - 1 else kinds[number % len(kinds)]()

    def _name(self) -> str:
        return "/".join(self._draw.choices(_PARTS, k=self._draw.randint(1, 5)))

    def _filled(self, address: str) -> str:
        text = address.replace("{id}", self._draw.choice(self._ids))
        while "{" in text:
            text = text.replace("{name}", self._name(), 1).replace(
                "{any}", self._draw.choice([*_PARTS, *self._ids]), 1
            )
            text = text.replace("{number}", self._draw.choice(_NUMBERS), 1)
            text = text.replace("${HOME}", "HOME").replace("{{7*7}}", "7").replace("{}", "")
        return _printable(text)

    def _path(self) -> tuple[str, str, dict[str, str], None]:
        method = self._draw.choice(["GET", "GET", "DELETE", "PATCH", "POST", "HEAD", "TRACE", "OPTIONS"])
        return method, self._filled(self._draw.choice(_ADDRESSES)), {}, None

    def _header(self) -> tuple[str, str, dict[str, str], None]:
        name = self._draw.choice(
            [
                "Authorization",
                "Host",
                "Origin",
                "Cookie",
                "If-None-Match",
                "Idempotency-Key",
                "Content-Length",
                "X-Forwarded-Host",
                "Last-Event-ID",
                "Accept",
                "Content-Type",
                "X-Forwarded-For",
                "Connection",
            ]
        )
        value = self._draw.choice(
            [*_PARTS, *_NUMBERS, "Bearer " + "a" * 9000, "Basic eDp5", "*", 'W/"a", *', "Bearer a.b.c"]
        )
        plain = "".join(letter for letter in value if 32 <= ord(letter) < 127)
        address = self._filled(self._draw.choice(_ADDRESSES[:6]))
        return "GET", address, {name: plain}, None

    def _range(self) -> tuple[str, str, dict[str, str], None]:
        first, last = self._draw.choices([*_NUMBERS, "5", "7"], k=2)
        text = self._draw.choice(
            [f"bytes={first}-{last}", "bytes=" + "0-1," * 500, f"bytes=-{first}", f"{first}={last}"]
        )
        plain = "".join(letter for letter in text if 32 <= ord(letter) < 127)
        return "GET", f"/api/v1/datasets/{self._draw.choice(self._ids)}/files/a.csv", {"Range": plain}, None

    def _json(self) -> tuple[str, str, dict[str, str], bytes]:
        keys = [
            "verb",
            "name",
            "task",
            "data",
            "dataset",
            "file",
            "run",
            "inputs",
            "spec",
            "ram",
            "root",
            "path",
            "place",
            "url",
            "plan",
            "scopes",
            "labels",
            "masks",
            "limit_seconds",
            "priority",
            "model",
            "people",
            "prompt",
            "controls",
        ]
        body: Any = {key: self._value() for key in self._draw.sample(keys, 4)}
        if self._draw.random() < 0.6:
            body |= {
                "verb": self._draw.choice(["train", "predict", "pack", "explain", "evaluate", "generate"])
            }
        raw = json.dumps(body).encode()
        odd = self._draw.random()
        if odd < 0.1:
            raw = b"[" * 100_000
        elif odd < 0.15:
            raw = raw[:-3]
        elif odd < 0.2:
            raw = b'{"name": ' + b"9" * 5000 + b"}"
        address = self._draw.choice(["/jobs", "/datasets", "/projects", "/plans", "/rasters", "/keys"])
        return "POST", f"/api/v1{address}", {"Content-Type": "application/json"}, raw

    def _value(self) -> Any:
        if self._draw.random() < 0.3:
            return {"dataset": self._draw.choice(self._ids), "file": self._name()}
        return self._draw.choice([*_VALUES, self._draw.choice(self._ids), self._name()])

    def _file(self) -> tuple[str, str, dict[str, str], bytes]:
        name = self._draw.choice(
            ["a.tif", "a.png", "a.jpg", "a.npy", "a.npz", "a.parquet", "a.csv", "a.safetensors"]
        )
        if self._draw.random() < 0.3:
            name = self._name()
        content = self._draw.choice(hostile_files.LYING)(self._draw)
        return "PUT", _printable(f"/api/v1/datasets/{self._draw.choice(self._ids)}/files/{name}"), {}, content

    def _archive(self) -> tuple[str, str, dict[str, str], bytes]:
        content = hostile_files.archive(self._draw, _PARTS)
        return "POST", f"/api/v1/datasets/{self._draw.choice(self._ids)}/archive", {}, content

    def _bomb(self) -> tuple[str, str, dict[str, str], bytes]:
        """Sent to where files are taken; rasters among them are looked at from then on."""
        taking = self._ids[1]
        if self._draw.random() < 0.5:
            content = self._draw.choice(list(hostile_files.zip_bombs().values()))
            return "POST", f"/api/v1/datasets/{taking}/archive", {}, content
        name, content = self._draw.choice(list(hostile_files.file_bombs().items()))
        made_up = json.dumps(["d", taking, name], separators=(",", ":")).encode()
        raster = base64.urlsafe_b64encode(made_up).rstrip(b"=").decode()
        if raster not in self._rasters:
            self._rasters.append(raster)
        return "PUT", f"/api/v1/datasets/{taking}/files/{name}", {}, content

    def _stream(self) -> tuple[str, str, dict[str, str], None]:
        job = self._draw.choice([*self._ids, *[self._ids[2]] * 3, self._draw.choice(_PARTS)])
        address = self._draw.choice(
            [_printable(f"/api/v1/jobs/{job}/events/stream"), "/api/v1/events/stream"]
        )
        value = self._draw.choice(_EVENT_IDS)
        plain = "".join(letter for letter in value if 32 <= ord(letter) < 127)
        if self._draw.random() < 0.3:
            address += "?" + urlencode({"after": self._draw.choice(_EVENT_IDS)})
        return "GET", address, {"Last-Event-ID": plain, "Accept": "text/event-stream"}, None

    def _fetch(self) -> tuple[str, str, dict[str, str], bytes]:
        host = self._draw.choice(_SERVERS)
        host = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
        url = self._draw.choice(_WEB).format(host=host, port=self._port)
        name = self._draw.choice(["a.csv", "a.tif", self._name()])
        body = json.dumps({"url": url, "name": name}).encode()
        address = f"/api/v1/datasets/{self._draw.choice(self._ids)}/fetch"
        return "POST", address, {"Content-Type": "application/json"}, body

    def _tile(self) -> tuple[str, str, dict[str, str], None]:
        numbers = [*_NUMBERS, "30", "1073741824"]
        z, x, y = ("0", "0", "0") if self._draw.random() < 0.6 else self._draw.choices(numbers, k=3)
        query = [
            ("bidx", self._draw.choice(["1", "3", "4", *_NUMBERS])),
            ("rescale", self._draw.choice(_RANGES)),
            ("colormap_name", self._draw.choice(["viridis", "gray", "a" * 50, "../x", "__class__"])),
        ]
        given = urlencode(self._draw.sample(query, self._draw.choice([0, 0, 1, 1, 2, 3])))
        raster = self._rasters[0] if self._draw.random() < 0.8 else self._draw.choice(self._rasters)
        address = f"/api/v1/rasters/{raster}"
        return "GET", _printable(f"{address}/tiles/{z}/{x}/{y}?{given}"), {}, None


def _printable(text: str) -> str:
    """As it can stand in a request line."""
    return "".join(
        letter
        if 33 <= ord(letter) < 127
        else "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "replace"))
        for letter in text
    )
