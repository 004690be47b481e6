"""Records of an explanation: the map, and the figures of the checks that it went through. No computation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]
Column = npt.NDArray[np.float64]

FELL_APART = 0.5
"""Below this rank correlation, of either sign, a map is another one than that of the trained model."""


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """Probability of the target (0..1) after each share of the pixels was taken away or put in.

    `shares` goes from 0 to 1, most important pixels first. `area` is the mean height of the curve;
    `random_area` that of maps which know nothing: a deletion should lie below it, an insertion above.
    """

    shares: Column
    probabilities: Column
    area: float
    random_area: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One step down the network: `module` and all above it random, and how alike the maps still are."""

    module: str
    correlation: float
    """Spearman's rank correlation with the trained model's map, -1..1: a mean over random networks."""


@dataclass(frozen=True, slots=True)
class Randomization:
    """Stages from the top of the network down; in the last one nothing learned is left."""

    stages: tuple[Stage, ...]

    @property
    def falls_apart(self) -> bool:
        """Whether the map needs what was learned. One that stays would look the same for any model."""
        return abs(self.stages[-1].correlation) < FELL_APART


@dataclass(frozen=True, slots=True)
class Energy:
    """How much of a map's positive part lies inside a mask."""

    inside: float | None
    """Share of the positive energy, 0..1; `None` where the map has no positive value."""
    area: float
    """Share of the picture that the mask covers: what a map that is even everywhere would get."""
    pointing: bool | None
    """Whether the highest value lies inside the mask (the pointing game); `None` as above."""


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """One method's answer to why the class `target` got its score.

    `map_HW` has the size of the input. Positive values speak for the class, negative ones against it;
    their scale is the method's own. `layer` is the module that was looked at, "" for methods that look at the
    input. `probability` is the model's own, before any temperature.
    """

    map_HW: Map
    method: str
    layer: str
    target: int
    probability: float
    deletion: Curve | None = None
    insertion: Curve | None = None
    randomization: Randomization | None = None
    energy: Energy | None = None

    def figures(self) -> dict[str, float | None]:
        """The figures as flat metrics: those of the checks that were made."""
        found: dict[str, float | None] = {"probability": self.probability}
        for name, curve in (("deletion", self.deletion), ("insertion", self.insertion)):
            if curve is not None:
                found |= {name: curve.area, f"{name}_random": curve.random_area}
        if self.randomization is not None:
            found["randomized"] = self.randomization.stages[-1].correlation
        if self.energy is not None:
            pointing = self.energy.pointing
            found |= {"energy": self.energy.inside, "energy_area": self.energy.area}
            found["pointing"] = None if pointing is None else float(pointing)
        return found
