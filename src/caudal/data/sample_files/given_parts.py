"""Arrays whose names say what they are for (`X_train`, `y_train`, `X_test`): one set with a field `split`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caudal.core.messages import _
from caudal.data.sample_files.arrangement import Stored
from caudal.data.sample_files.base import Part
from caudal.data.unreadable import unreadable

SPLIT = "split"
_NAME = re.compile(r"(?P<stem>.+)_(?P<part>train|valid|validation|val|test)(?P<ends>\.ends)?", re.IGNORECASE)


@dataclass(frozen=True)
class GivenPart:
    """A part's name, its arrays under the names that they have in all parts, and what they are called."""

    name: str
    arrays: tuple[Stored, ...]
    called: dict[str, str]


def given_parts(arrays: Sequence[Stored]) -> list[GivenPart]:
    """The parts in the order of the file; none unless every array is of one, and all parts have the same."""
    parts: dict[str, dict[str, Stored]] = {}
    for one in arrays:
        match = _NAME.fullmatch(one.name)
        if match is None:
            return []
        stem = match["stem"] + (match["ends"] or "")
        parts.setdefault(match["part"].lower(), {})[stem] = one
    if len(parts) < 2 or len({frozenset(found) for found in parts.values()}) > 1:
        return []
    stems = list(next(iter(parts.values())))
    return [
        GivenPart(
            name,
            tuple(replace(found[stem], name=stem) for stem in stems),
            {stem: found[stem].name for stem in stems},
        )
        for name, found in parts.items()
    ]


def join_parts(path: Path, given: Sequence[GivenPart], part_of: Callable[[GivenPart], Part]) -> Part:
    """The parts one after the other; what is no raw array is a block for each of them.

    Raises:
        UnreadableFile: their fields differ.
    """
    made = [part_of(one) for one in given]
    for one, name in zip(made, given, strict=True):
        if one.fields != made[0].fields:
            raise unreadable(
                path,
                _("its parts {a} and {b} hold different fields").format(a=given[0].name, b=name.name),
                _("Give all parts the same arrays, with the same dtypes and shapes."),
            )
    counts = np.array([one.samples for one in made], np.int64)
    begins = np.cumsum(counts) - counts
    names = tuple(one.name for one in given)
    raw = all(one.places is not None for one in made)
    return replace(
        made[0],
        ends=np.concatenate([one.ends + begin for one, begin in zip(made, begins, strict=True)]),
        rows={name: np.concatenate([one.rows[name] for one in made]) for name in made[0].rows},
        places={n: np.concatenate([(one.places or {})[n] for one in made]) for n in made[0].places or {}}
        if raw
        else None,
        scratch_bytes=max(one.scratch_bytes for one in made),
        left_out=tuple(dict.fromkeys(text for one in made for text in one.left_out)),
        extra={SPLIT: (np.repeat(np.arange(len(names)), counts), names)},
        notes=tuple(given),
    )
