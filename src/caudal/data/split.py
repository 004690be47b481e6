"""Which images are held out: by file or by group, seeded, never the same picture on both sides."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np

from caudal.core.errors import DataError, UsageError
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.copies import fingerprint
from caudal.data.index import Index


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of the images to train on and of those held out, each sorted; and what was noticed."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def split(index: Index, seed: int, folds: int, fold: int, group_pattern: str | None = None) -> Split:
    """Hold out part `fold` of `folds` equal parts.

    Images whose names match `group_pattern` with the same first group stay together, and so do files
    of the same size whose first and last 64 KiB are equal. Each band layout is dealt out evenly.

    Raises:
        DataError: there are fewer groups than folds, or a name does not match the pattern.
        UsageError: the pattern is no regular expression with one group.
    """
    groups = _groups(index, group_pattern)
    copies = _merge_copies(index, groups)
    names = sorted(set(groups))
    if len(names) < folds:
        raise DataError(
            _("There are {found} images to deal out into {folds} parts.").format(
                found=len(names), folds=folds
            ),
            _("Add images, or set split.folds to {found} or less in the spec (at least 2).").format(
                found=max(2, len(names))
            ),
            images=len(names),
            folds=folds,
        )
    order = generator(seed, "split").permutation(len(names))
    some_image = {name: i for i, name in enumerate(groups)}
    by_layout = sorted(order, key=lambda k: int(index.layout[some_image[names[k]]]))
    chosen = {names[k] for position, k in enumerate(by_layout) if position % folds == fold}
    held_out = tuple(i for i, name in enumerate(groups) if name in chosen)
    train = tuple(i for i, name in enumerate(groups) if name not in chosen)
    warnings = []
    if copies:
        warnings.append(
            _("{count} images are copies of another one; copies stay on one side (first: {path}).").format(
                count=len(copies), path=index.image(copies[0])
            )
        )
    return Split(train, held_out, tuple(warnings))


def _groups(index: Index, pattern: str | None) -> list[str]:
    if pattern is None:
        return [index.images[i] for i in range(len(index))]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            _("split.group is no regular expression: {why}.").format(why=error),
            _("Put the part that names the group in brackets, like “(site[0-9]+)”."),
        ) from None
    groups = []
    for i in range(len(index)):
        name = str(index.image(i))
        match = compiled.search(name.replace(os.sep, "/"))
        if match is None:
            raise DataError(
                _("{path} does not match split.group.").format(path=name),
                _("Write a pattern that every name matches."),
                path=name,
            )
        groups.append(match.group(1) if match.groups() else match.group(0))
    return groups


def _merge_copies(index: Index, groups: list[str]) -> list[int]:
    """Bring files of the same content into one group; returns the copies."""
    copies = []
    sizes, counts = np.unique(index.bytes, return_counts=True)
    doubtful = set(sizes[counts > 1].tolist())
    first: dict[bytes, int] = {}
    for i in range(len(index)):
        if int(index.bytes[i]) not in doubtful:
            continue
        digest = fingerprint(index.image(i), int(index.bytes[i]))
        twin = first.setdefault(digest, i)
        if twin != i:
            old, new = groups[i], groups[twin]
            groups[:] = [new if name == old else name for name in groups]
            copies.append(i)
    return copies
