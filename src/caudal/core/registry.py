"""Names that become objects: a literal table, and entry points for outsiders.

A table maps a name to `"module:attribute"` and imports nothing until that name is asked for, so it can
be listed at no cost. A name taken twice is an error, never a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from caudal.core.errors import UsageError
from caudal.core.messages import _


class Registry:
    """One kind of thing that users name: a task, a model, a reader, a lever."""

    def __init__(self, kind: str, group: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._own = dict(table)

    @cached_property
    def _table(self) -> dict[str, str]:
        # Once: looking through the installed packages takes milliseconds.
        table = dict(self._own)
        for point in entry_points(group=self.group):
            if point.name in table:
                raise UsageError(
                    _("Two packages offer the {kind} “{name}”: {first} and {second}.").format(
                        kind=self.kind, name=point.name, first=table[point.name], second=point.value
                    ),
                    _("Uninstall one of them."),
                )
            table[point.name] = point.value
        return table

    def names(self) -> list[str]:
        """Every name, sorted; nothing is imported."""
        return sorted(self._table)

    def check(self, name: str) -> None:
        """Make sure that there is `name`, without importing it.

        Raises:
            UsageError: there is no such name, or two packages claim one.
        """
        if name not in self._table:
            raise UsageError(
                _("There is no {kind} “{name}”.").format(kind=self.kind, name=name),
                _("Choose one of: {names}.").format(names=", ".join(self.names())),
            )

    def get(self, name: str) -> Any:
        """The object behind `name`.

        Raises:
            UsageError: as `check`.
        """
        self.check(name)
        module, attribute = self._table[name].split(":")
        return getattr(import_module(module), attribute)
