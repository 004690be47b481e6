"""Texts beside the arrays of a file, one a sample: a label, a group, a part of a split. They become numbers.

How texts lie in a file is what its reader knows, not this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Part
from caudal.data.sample_files.given_parts import GivenPart

MOST_TEXT_BYTES = 1 << 26
"""Texts of one array are read whole; more of them are no labels."""


def texts_of(values: Array) -> list[str]:
    """The texts of an array of dtype U or S, in order; bytes are UTF-8."""
    flat = values.reshape(-1)
    return [
        str(one) for one in (np.char.decode(flat, "utf-8", "replace") if flat.dtype.kind == "S" else flat)
    ]


def with_texts(part: Part, texts: Mapping[str, list[str]], given: Sequence[GivenPart] = ()) -> Part:
    """The part with the texts that it has one of for each sample; of all others it says that they are not.

    Where a file holds `given` parts one after the other, so do its texts (`y_train`, `y_test`).
    """
    extra: dict[str, tuple[Array, tuple[str, ...]]] = {}
    left_out = list(part.left_out)
    for name, each in joined_texts(texts, given).items():
        if len(each) != part.samples:
            left_out.append(_("“{name}” is left out: it is not one text a sample.").format(name=name))
            continue
        every = tuple(sorted(set(each)))
        number = {text: code for code, text in enumerate(every)}
        extra[name] = (np.array([number[text] for text in each], np.int64), every)
    return replace(part, extra={**part.extra, **extra}, left_out=tuple(left_out))


def joined_texts(texts: Mapping[str, list[str]], given: Sequence[GivenPart]) -> dict[str, list[str]]:
    """The texts under the names that they have in all `given` parts; those that one lacks as they are."""
    found, left = {}, dict(texts)
    lower = {name.lower(): name for name in texts}
    for name in texts:
        stem = next(
            (name[: -len(f"_{one.name}")] for one in given if name.lower().endswith(f"_{one.name}")), ""
        )
        called = [lower.get(f"{stem}_{one.name}".lower(), "") for one in given] if stem else []
        if called and all(each in left for each in called):
            found[stem] = [text for each in called for text in left.pop(each)]
    return {**found, **left}
