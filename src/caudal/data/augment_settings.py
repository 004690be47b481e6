"""How far samples are changed. Apart from the change itself, which needs torch."""

from __future__ import annotations

from pydantic import Field

from caudal.core.config import Frozen


class Augmentation(Frozen):
    """How far samples are changed.

    `flips`: the eight symmetries of the square. `zoom`: largest change of scale (0.4: from 1/1.4 to
    1.4). `turn_degrees`: largest further turn. `gain`, `shift`: largest change of contrast and
    brightness, in deviations. `mix`: how far bands run into each other. `bend`: largest curvature of
    the tone curve. `invert`: share of samples turned into their negative. Of sequences `noise` is added to
    the features, in deviations, and they slide by up to the share `slide` of their steps; nothing else
    changes them. All zero and `flips=False` leaves samples alone.
    """

    flips: bool = True
    zoom: float = Field(0.4, ge=0)
    turn_degrees: float = Field(15.0, ge=0)
    gain: float = Field(0.25, ge=0)
    shift: float = Field(0.25, ge=0)
    mix: float = Field(0.1, ge=0)
    bend: float = Field(0.12, ge=0)
    invert: float = Field(0.2, ge=0, le=1)
    noise: float = Field(0.0, ge=0)
    slide: float = Field(0.0, ge=0, le=0.5)

    @property
    def warps(self) -> bool:
        """Whether pixels have to be drawn anew between the old ones."""
        return self.zoom > 0 or self.turn_degrees > 0
