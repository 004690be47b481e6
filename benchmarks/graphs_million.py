"""A million small graphs in a pack, beside PyTorch Geometric's loader over its own on-disk set.

Ours draws from all million; the peer's SQLite file holds the first 50 000 of them, which favours it. Rounds
go in turn, each in its own group. Nothing is learned: what is timed is shuffled batches of joined graphs.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tests.cgroups import run_in_group

from benchmarks.children import GIB, MIB, last_object, mib, module
from benchmarks.rows import Row

GRAPHS, IN_FILE, PEERS = 1_000_000, 25_000, 50_000
FEATURES, BATCH, ROUNDS, SECONDS = 9, 64, 3, 5.0
WAYS = {"ours": 512 * MIB, "pyg 0": 4 * GIB, "pyg 2": 4 * GIB}  # of PyG by workers


def shard(number: int, graphs: int = IN_FILE) -> dict[str, np.ndarray]:
    """Graphs of 8 to 40 nodes: a ring, and chords both ways; arrays of all with the ends of each."""
    draw = np.random.default_rng(number)
    nodes = draw.integers(8, 41, graphs)
    ends = np.cumsum(nodes)
    at = np.arange(ends[-1]) - np.repeat(ends - nodes, nodes)  # each node's number in its graph
    following = np.where(at + 1 == np.repeat(nodes, nodes), 0, at + 1)
    to = draw.integers(0, np.repeat(nodes, nodes))
    chord = at % 4 == 0
    pairs = np.stack([np.stack([at, following], 1), np.stack([following, at], 1)], 1)
    pairs = np.concatenate([pairs, np.stack([np.stack([at, to], 1), np.stack([to, at], 1)], 1)], 1)
    kept = np.stack([np.ones_like(chord), np.ones_like(chord), chord, chord], 1)
    return {
        "x": draw.integers(0, 64, (int(ends[-1]), FEATURES)).astype(np.float32) / 8,
        "x.ends": ends,
        "edges": pairs[kept].astype(np.int64),
        "edges.ends": np.cumsum(kept.sum(1))[ends - 1],
        "y": draw.integers(0, 2, graphs),
    }


def make(folder: Path, graphs: int = GRAPHS) -> None:
    """The pack at `folder`/pack, by `caudal pack`."""
    from safetensors.numpy import save_file

    import caudal

    (folder / "source").mkdir()
    for k in range(graphs // IN_FILE):
        save_file(shard(k), folder / "source" / f"{k:03d}.safetensors")
    caudal.pack(folder / "source", out=folder / "pack", ram="256MiB")
    shutil.rmtree(folder / "source")


def row() -> Row:
    """Rounds in turn, then a whole epoch of ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, GRAPHS)
        _peers_set(folder / "pyg")
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _round in range(ROUNDS):
            for way, limit in WAYS.items():
                command = [sys.executable, "-m", "benchmarks.graphs_million", way, name]
                found[way].append(last_object(run_in_group(command, limit, 120)))
        epoch = module("graphs_million", 512 * MIB, "epoch", name)
        pack_bytes = sum(file.stat().st_size for file in (folder / "pack").iterdir())
    rate = {way: statistics.median(one["rate"] for one in runs) for way, runs in found.items()}
    held = {way: max(one["held"] for one in runs) for way, runs in found.items()}
    gain = rate["ours"] / max(rate["pyg 0"], rate["pyg 2"])
    grown = epoch["held"] - epoch["early"]
    return Row(
        f"{GRAPHS} graphs of 8 to 40 nodes from a pack of {pack_bytes / 1e9:.1f} GB, {BATCH} a batch, "
        f"joined and shuffled; PyG's DataLoader over its OnDiskDataset (SQLite, schema) of {PEERS} of them",
        "samples/s ≥ 3 × PyG's at its best number of workers; memory flat over an epoch (≤ 16 MiB more)",
        gain >= 3 and grown <= 16 * MIB and epoch["samples"] == GRAPHS,
        [
            *((f"{way}: samples/s, charged", f"{rate[way]:.0f}, {mib(held[way])}") for way in WAYS),
            ("ours ÷ best PyG", f"{gain:.1f}"),
            ("a whole epoch: graphs, seconds", f"{epoch['samples']:.0f}, {epoch['seconds']:.1f}"),
            ("charged at the most: first tenth, all", f"{mib(epoch['early'])}, {mib(epoch['held'])}"),
        ],
    )


def _peers_set(root: Path) -> None:
    import torch
    from torch_geometric.data import Data

    made = _on_disk(root)
    left = PEERS
    for number in range(-(-PEERS // IN_FILE)):
        one = {name: torch.from_numpy(values) for name, values in shard(number).items()}
        nodes, edges = one["x.ends"].tolist(), one["edges.ends"].tolist()
        graphs = [
            Data(x=one["x"][a:b], edge_index=one["edges"][c:d].T.contiguous(), y=int(one["y"][k]))
            for k, (a, b, c, d) in enumerate(zip([0, *nodes], nodes, [0, *edges], edges, strict=False))
        ]
        made.extend(graphs[:left], batch_size=1000)
        left -= len(graphs)
    made.close()


def _on_disk(root: Path) -> Any:
    import torch
    from torch_geometric.data import Data, OnDiskDataset

    class Graphs(OnDiskDataset):
        """As its documentation shows for graphs of one kind, without pickles."""

        def __init__(self) -> None:
            tensor = {"x": (torch.float32, (-1, FEATURES)), "edge_index": (torch.int64, (2, -1))}
            schema = {name: {"dtype": dtype, "size": size} for name, (dtype, size) in tensor.items()}
            super().__init__(str(root), schema={**schema, "y": int})

        def serialize(self, data: Any) -> dict[str, Any]:
            return {"x": data.x, "edge_index": data.edge_index, "y": data.y}

        def deserialize(self, data: dict[str, Any]) -> Any:
            return Data(**data)

    return Graphs()


def batches(way: str, folder: Path, epochs: int) -> Iterator[int]:
    """How many graphs each joined batch has."""
    if way.startswith("pyg"):
        from torch_geometric.loader import DataLoader

        loader = DataLoader(
            _on_disk(folder / "pyg"), BATCH, shuffle=True, num_workers=int(way.removeprefix("pyg "))
        )
        for _epoch in range(epochs):
            for joined in loader:
                yield int(joined.num_graphs)
        return
    import caudal

    for batch in caudal.stream(
        folder / "pack", BATCH, ram="64MiB", epochs=epochs, threads=2, join_graphs=True
    ):
        assert len(batch["x"]) == len(batch["batch"])
        assert batch["edge_index"].shape[0] == 2
        yield batch.size


def measure(way: str, folder: Path) -> dict[str, float]:
    """Samples a second after the first second, and what the processes are charged with; or a whole epoch."""
    from caudal.memory.meters import Watch
    from caudal.runs.machine import settle

    settle()
    whole = way == "epoch"
    samples, early, began, begun_at = 0, 0.0, time.perf_counter(), 0
    warm = 0.0
    with Watch() as watch:
        for count in batches("ours" if whole else way, folder, 1 if whole else 1000):
            samples += count
            now = time.perf_counter()
            if whole:
                early = early or (float(watch.peak) if samples > GRAPHS // 10 else 0.0)
            elif not warm and now - began > 1:
                warm, begun_at = now, samples
            elif warm and now - warm > SECONDS:
                break
    seconds = time.perf_counter() - (began if whole else warm)
    return {
        "rate": (samples - begun_at) / seconds,
        "held": float(watch.peak),
        "early": early,
        "samples": samples,
        "seconds": seconds,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
