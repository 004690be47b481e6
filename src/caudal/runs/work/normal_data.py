"""The data of a run over normal images: what is learned from, and what is scored at its end."""

from __future__ import annotations

from dataclasses import dataclass

from caudal.data.index import Index
from caudal.data.mvtec import Judged
from caudal.data.split import Split


@dataclass(frozen=True)
class NormalData:
    """Images to learn from, how they are split, and images to score at the end if the folder names some.

    `warnings` are what has to be said of what was found. `thrifty`: the good images that are scored are the
    held-out ones, which set the thresholds, too.
    """

    index: Index
    parts: Split
    judged: tuple[Judged, ...]
    warnings: tuple[str, ...] = ()
    thrifty: bool = False
