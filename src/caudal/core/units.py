"""Bytes and spans of time, as people write them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from caudal.core.errors import UsageError
from caudal.core.messages import _

_FACTORS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20,
    "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40,
}  # fmt: skip
_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


_SPAN = re.compile(
    r"\s*(?:([0-9.]+)\s*h)?\s*(?:([0-9.]+)\s*m(?:in)?)?\s*(?:([0-9.]+)\s*s?)?\s*", re.IGNORECASE
)


def parse_seconds(text: str) -> float:
    """Read `"90m"`, `"2h 30m"`, `"45s"` or a plain number of seconds.

    Raises:
        UsageError: `text` is no span of time, or not above zero.
    """
    match = _SPAN.fullmatch(text)
    try:
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    except ValueError:
        hours = minutes = seconds = 0.0
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(
            _("“{text}” is not a span of time.").format(text=text),
            _("Write it like 90m, 2h30m or 45s."),
            text=text,
        )
    return total


class Bytes(int):
    """A count of bytes. Prints as `1.5 GiB`; is an `int` everywhere else."""

    @classmethod
    def parse(cls, text: str | int) -> Bytes:
        """Read `"4GiB"`, `"512 MB"`, `"1.5g"` or a plain number of bytes.

        Raises:
            UsageError: `text` is no size, or not above zero.
        """
        match = _PATTERN.fullmatch(str(text))
        factor = _FACTORS.get(match[2].lower()) if match else None
        if match is None or factor is None or float(match[1]) * factor < 1:
            raise UsageError(
                _("“{text}” is not a size.").format(text=text),
                _("Write it like 4GiB, 512MiB or 2GB."),
                text=text,
            )
        return cls(float(match[1]) * factor)

    @classmethod
    def _read(cls, value: str | int) -> Bytes:
        # A record may well hold no bytes; a size that somebody writes is above zero.
        return cls.parse(value) if isinstance(value, str) else cls(value)

    def __str__(self) -> str:
        value, sign = abs(int(self)), "-" if self < 0 else ""
        if value < 2**10:
            return f"{sign}{value} B"
        for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value >= 2**power:
                number = value / 2**power
                return f"{sign}{number:.0f} {unit}" if number >= 100 else f"{sign}{number:.3g} {unit}"
        raise AssertionError("unreachable")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "examples": ["4GiB"]}]}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._read,
            serialization=core_schema.plain_serializer_function_ser_schema(int),
        )


MIB = 2**20
