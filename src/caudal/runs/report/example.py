"""One window of an image for the report, drawn: the picture, and what the model says of it."""

from __future__ import annotations

from dataclasses import dataclass

from caudal.core.geometry import Window

MOST = 6
SIDE_PX = 512


@dataclass(frozen=True)
class Example:
    """One window as PNG bytes: the picture, and layers over it with their names.

    `figure` is the window's own, under the name `figure_name`.
    """

    name: str
    window: Window
    whole: bool
    figure: float | None
    photo: bytes
    layers: tuple[tuple[str, bytes], ...]
    figure_name: str = ""
