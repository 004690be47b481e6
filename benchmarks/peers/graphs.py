"""The graphs of a set in RAM, for the peers that hold them there: parsed once from JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

Graph = tuple[np.ndarray, np.ndarray, int]


def read(folder: str) -> list[Graph]:
    """x (nodes, features) float32, edges (edges, 2) int64, y of every graph."""
    found = []
    for path in sorted(Path(folder).glob("*.jsonl")):
        with path.open() as lines:
            for line in lines:
                graph = json.loads(line)
                x = np.asarray(graph["x"], np.float32)
                edges = np.asarray(graph["edges"], np.int64).reshape(-1, 2)
                found.append((x, edges, int(graph["y"])))
    return found


def cut(
    x: np.ndarray, edges: np.ndarray, y: np.ndarray, node_ends: np.ndarray, edge_ends: np.ndarray
) -> dict:  # type: ignore[type-arg]
    """A joined batch as lists of single graphs, with node numbers of their own."""
    firsts = np.concatenate([[0], node_ends[:-1]])
    parts = np.split(edges, edge_ends[:-1])
    return {
        "x": np.split(x, node_ends[:-1]),
        "edges": [part - first for part, first in zip(parts, firsts, strict=True)],
        "y": list(y),
    }
