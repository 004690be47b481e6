"""What a row is, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

ROWS = {
    "nuclei": "benchmarks.quality:nuclei",
    "wildfire": "benchmarks.quality:wildfire",
    "lesion": "benchmarks.lesion:row",
    "anomaly_papers": "benchmarks.anomaly_papers:row",
    "anomaly_bank": "benchmarks.anomaly_bank:row",
    "multispectral": "benchmarks.multispectral:row",
    "multispectral_seed": "benchmarks.multispectral_seed:row",
    "photographs_speed": "benchmarks.photographs_speed:row",
    "seed_load": "benchmarks.seed_load:row",
    "large_set": "benchmarks.large_set:row",
    "world": "benchmarks.world:row",
    "raster_speed": "benchmarks.raster_speed:row",
    "transport": "benchmarks.loaders.rows:transport",
    "ragged": "benchmarks.loaders.rows:ragged",
    "ragged_limited": "benchmarks.loaders.rows:ragged_limited",
    "windows_deflate": "benchmarks.loaders.rows:windows_deflate",
    "windows_zstd": "benchmarks.loaders.rows:windows_zstd",
    "windows_lzw": "benchmarks.loaders.rows:windows_lzw",
    "windows_small_lzw": "benchmarks.loaders.rows:windows_small_lzw",
    "packed": "benchmarks.loaders.rows:packed",
    "jpeg": "benchmarks.loaders.rows:jpeg",
    "jpeg_scaled": "benchmarks.loaders.rows:jpeg_scaled",
    "graphs": "benchmarks.loaders.rows:graphs",
    "graph_large": "benchmarks.graph_large:row",
    "graphs_million": "benchmarks.graphs_million:row",
    "sequence_move": "benchmarks.sequence_move:row",
    "sequence_whole": "benchmarks.sequence_whole:row",
    "index": "benchmarks.loaders.rows:index",
    "stall": "benchmarks.loaders.rows:stall",
    "flat_memory": "benchmarks.endurance:flat_memory",
    "broken": "benchmarks.endurance:broken",
    "prediction": "benchmarks.prediction:row",
    "draws": "benchmarks.draws:row",
    "drift": "benchmarks.drift:row",
    "governor": "benchmarks.governor:row",
    "tight": "benchmarks.tight:row",
    "kill_matrix": "benchmarks.kill_matrix:row",
    "weights_load": "benchmarks.weights_load:row",
    "chaos": "benchmarks.chaos:row",
    "service_cancel": "benchmarks.service_cancel:row",
    "service_load": "benchmarks.service_load:row",
    "service_start": "benchmarks.service_start:row",
    "service_mlflow": "benchmarks.service_mlflow:row",
    "hostile": "benchmarks.hostile:row",
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
