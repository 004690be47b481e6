"""The base of every record that a user may write: frozen, strict, TOML both ways."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from caudal.core.errors import UsageError
from caudal.core.messages import _


class Frozen(BaseModel):
    """A record that cannot change and takes no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def make(cls, values: dict[str, Any], source: str = "") -> Self:
        """Build from plain values, or raise `UsageError` naming the first wrong key and why.

        Raises:
            UsageError: an unknown key, or a value out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UsageError(
                _("{source}“{key}” is wrong: {why}.").format(
                    source=f"{source}: " if source else "", key=key, why=first["msg"]
                ),
                _("See `caudal schema` for what each key takes."),
                key=key,
            ) from None

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read from a TOML file.

        Raises:
            UsageError: the file is missing, is not TOML, or holds a wrong key or value.
        """
        try:
            with path.open("rb") as file:
                values = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                _("{path} is not a spec that can be read: {why}.").format(path=path, why=error),
                _("Write one with `caudal plan … -o spec.toml`."),
            ) from None
        return cls.make(values, str(path))

    def to_toml(self) -> str:
        """This record as TOML, without the keys that are unset."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
