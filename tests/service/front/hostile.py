"""Inputs that mean harm: paths, ids, headers, JSON, ranges, event ids, bodies. Seeded, as many as wanted."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

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


class Hostile:
    """Requests as (method, address, headers, body)."""

    def __init__(self, seed: int, ids: list[str]) -> None:
        self._draw = random.Random(seed)
        self._ids = ids

    def requests(self, count: int) -> Iterator[tuple[str, str, dict[str, str], bytes | None]]:
        """So many."""
        kinds = [self._path, self._header, self._json, self._file, self._archive, self._range]
        for number in range(count):
            yield kinds[number % len(kinds)]()

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
        content = self._draw.choice([_tiff, _png, _noise, _npy])(self._draw)
        return "PUT", _printable(f"/api/v1/datasets/{self._draw.choice(self._ids)}/files/{name}"), {}, content

    def _archive(self) -> tuple[str, str, dict[str, str], bytes]:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for number in range(self._draw.randint(1, 4)):
                name = self._draw.choice([*_PARTS, f"a{number}.csv", f"b{number}.png"]) or "x"
                content = b"0" * self._draw.choice([10, 10, 3 * 2**20])
                if "\0" not in name:
                    made.writestr(f"{number}{name}" if self._draw.random() < 0.5 else name, content)
        content = bytearray(file.getvalue())
        for _n in range(self._draw.randint(0, 6)):
            content[self._draw.randrange(len(content))] = self._draw.randrange(256)
        return "POST", f"/api/v1/datasets/{self._draw.choice(self._ids)}/archive", {}, bytes(content)


def _printable(text: str) -> str:
    """As it can stand in a request line."""
    return "".join(
        letter
        if 33 <= ord(letter) < 127
        else "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "replace"))
        for letter in text
    )


def _tiff(draw: random.Random) -> bytes:
    values = [0, 1, 8, 255, 2**16, 2**31, 2**32 - 1]
    tags = [
        (tag, draw.choice([3, 4, 4, 4, 16]), draw.choice([1, 1, 1, 2, 2**20, 2**31]), draw.choice(values))
        for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 324, 325, 330, 339)
        if draw.random() < 0.9
    ]
    body = struct.pack("<H", draw.choice([len(tags), 65535, 0]))
    body += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", draw.choice([0, 8]))
    return draw.choice([b"II*\0", b"MM\0*", b"II+\0"]) + struct.pack("<I", 8) + body + draw.randbytes(200)


def _png(draw: random.Random) -> bytes:
    head = struct.pack(">II", draw.choice([1, 2**31 - 1, 60000]), draw.choice([1, 60000])) + draw.randbytes(5)
    chunk = (
        struct.pack(">I", draw.choice([13, 2**31]))
        + b"IHDR"
        + head
        + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk + draw.randbytes(100)


def _npy(draw: random.Random) -> bytes:
    shape = draw.choice(["(1,)", "(2**60,)", "(10**12,)", "(-1,)", "(1,)*50", "()"])
    kind = draw.choice(["<f4", "|O", "<U9999", "V8"])
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    return (
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", draw.choice([118, 65535]))
        + head.encode().ljust(117)
        + b"\n1234"
    )


def _noise(draw: random.Random) -> bytes:
    head = draw.choice([b"", b"PAR1", b"PK\x03\x04", b"\xff\xd8\xff", b"II*\0", b"\x89PNG\r\n\x1a\n"])
    return head + draw.randbytes(draw.choice([0, 7, 500])) + draw.choice([b"", b"PAR1"])
