"""One thing that the doctor looked at, and how it is written. Looks at nothing itself."""

from __future__ import annotations

from caudal.core.config import Frozen
from caudal.core.messages import _


class Fact(Frozen):
    """One thing that was looked at; `mend` is one sentence, and empty where nothing is wrong."""

    name: str
    value: str
    mend: str = ""


def seen(value: object) -> str:
    """The value, or that no meter shows it."""
    return _("cannot be seen") if value is None else str(value)


def fact(name: str, value: object, fault: bool = False, mend: str = "") -> Fact:
    """A fact with its `mend` where there is a `fault`; a value of `None` cannot be seen."""
    return Fact(name=name, value=seen(value), mend=mend if fault else "")
