"""Sets of tensors, graphs and rows: ragged sequences, patches, ready tensors, small graphs, a long table.

Every value follows from the seed. Each function writes into the folder it is given and returns the facts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

RAGGED_FILES, RAGGED_COLUMNS = 340, 64
MIB = 2**20


def ragged(folder: Path, share: float) -> dict[str, Any]:
    """A file a sample: `x` (T, 64) float32 of 1 to 8 MiB, `y` int64; 1.5 GB in all."""
    draw = np.random.default_rng(1)
    files, total = _count(RAGGED_FILES, share), 0
    for i in range(files):
        rows = int(draw.uniform(1, 8) * MIB) // (4 * RAGGED_COLUMNS)
        x = draw.standard_normal((rows, RAGGED_COLUMNS), np.float32)
        save_file({"x": x, "y": np.array(i, np.int64)}, folder / f"{i:05d}.safetensors")
        total += x.nbytes + 8
    return {"kind": "ragged", "samples": files, "sample_bytes": total / files}


def chips(folder: Path, share: float) -> dict[str, Any]:
    """20 000 patches: `x` (N, 128, 128, 5) uint16 and `y` (N) int64, 2 000 a shard; 3.3 GB."""
    draw = np.random.default_rng(2)
    canvas = draw.integers(0, 3000, (1024, 1024, 5), np.uint16)
    count, shard = _count(20_000, share), _count(2_000, share)

    def patch() -> np.ndarray:
        row, col = draw.integers(0, 1024 - 128, 2)
        return canvas[row : row + 128, col : col + 128] + draw.integers(0, 900, dtype=np.uint16)

    for number, first in enumerate(range(0, count, shard)):
        part = min(shard, count - first)
        arrays: dict[str, np.ndarray] = {
            "x": np.stack([patch() for _sample in range(part)]),
            "y": np.arange(first, first + part),
        }
        save_file(arrays, folder / f"{number:03d}.safetensors")
    return {
        "kind": "chips",
        "samples": count,
        "shard": shard,
        "sample_bytes": 128 * 128 * 5 * 2 + 8,
        "patch_px": 128,
    }


def tensors(folder: Path, share: float) -> dict[str, Any]:
    """2 048 samples of 224 × 224 × 3 float32, 256 a shard; 1.2 GB, to be had in RAM or in the page cache."""
    draw = np.random.default_rng(3)
    count, shard = _count(2048, share), _count(256, share)
    for number, first in enumerate(range(0, count, shard)):
        part = min(shard, count - first)
        arrays: dict[str, np.ndarray] = {
            "x": draw.random((part, 224, 224, 3), np.float32),
            "y": np.arange(first, first + part),
        }
        save_file(arrays, folder / f"{number:03d}.safetensors")
    return {"kind": "tensors", "samples": count, "shard": shard, "sample_bytes": 224 * 224 * 3 * 4 + 8}


def graphs(folder: Path, share: float) -> dict[str, Any]:
    """30 000 graphs of 8 to 40 nodes with 9 numbers each, a ring and chords; JSON lines, 1 000 a file."""
    draw = np.random.default_rng(4)
    count, total, nodes_all = _count(30_000, share), 0, 0
    for number, first in enumerate(range(0, count, 1000)):
        with (folder / f"{number:03d}.jsonl").open("w") as lines:
            for i in range(first, min(first + 1000, count)):
                nodes = int(draw.integers(8, 41))
                x = draw.integers(0, 64, (nodes, 9)) / 8  # exact in float32 and short in JSON
                ring = np.column_stack([np.arange(nodes), np.roll(np.arange(nodes), -1)])
                chords = draw.integers(0, nodes, (nodes // 4, 2))
                edges = np.concatenate([ring, ring[:, ::-1], chords, chords[:, ::-1]])
                graph = {"x": x.tolist(), "edges": edges.tolist(), "y": int(i % 2)}
                lines.write(json.dumps(graph, separators=(",", ":")) + "\n")
                total += nodes * 9 * 4 + edges.size * 8 + 8
                nodes_all += nodes
    return {"kind": "graphs", "samples": count, "sample_bytes": total / count, "nodes": nodes_all / count}


def table(folder: Path, share: float) -> dict[str, Any]:
    """1.5 million rows of `x` float32 and `y` int64 in Parquet: what it costs to begin."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw, count = np.random.default_rng(5), _count(1_500_000, share)
    columns = {"x": draw.random(count, np.float32), "y": np.arange(count)}
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=100_000)
    return {"kind": "table", "samples": count, "sample_bytes": 12}


def _count(most: int, share: float) -> int:
    return max(1, round(most * share))
