"""What a row is, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

ROWS = {
    "nuclei": "benchmarks.quality:nuclei",
    "wildfire": "benchmarks.quality:wildfire",
    "seed_load": "benchmarks.seed_load:row",
    "large_set": "benchmarks.large_set:row",
    "world": "benchmarks.world:row",
    "raster_speed": "benchmarks.raster_speed:row",
}


@dataclass
class Row:
    """A claim: what was measured, the target, and figures in the order in which they are read."""

    claim: str
    target: str
    met: bool
    figures: list[tuple[str, str]] = field(default_factory=list)


def get(name: str) -> Callable[[], Row]:
    """The function that measures row `name`."""
    module, attribute = ROWS[name].split(":")
    function: Callable[[], Row] = getattr(import_module(module), attribute)
    return function
