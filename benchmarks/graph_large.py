"""One graph of 50 million edges in 1 GiB: written from a list of edges, then its nodes are learned.

Both in real groups of that size. Nodes know mostly their own kind, and their features say little of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.children import GIB, caudal, error_of, mib, module
from benchmarks.rows import Row

NODES, EDGES, FEATURES, KINDS = 2_500_000, 50_000_000, 32, 4
_PIECE = 1_000_000


def pieces(edges: int = EDGES, nodes: int = NODES) -> Iterator[np.ndarray]:
    """Pairs of nodes; seven of ten are of one kind (a node's kind is its number modulo `KINDS`)."""
    for k in range(-(-edges // _PIECE)):
        draw = np.random.default_rng(k)
        count = min(_PIECE, edges - k * _PIECE)
        pairs = draw.integers(0, nodes, (count, 2))
        same = draw.random(count) < 0.7
        pairs[same, 1] += (pairs[same, 0] - pairs[same, 1]) % KINDS
        yield np.minimum(pairs, nodes - 1).astype(np.int32)


def write(folder: Path) -> dict[str, float]:
    """The folder of the graph; how long it took."""
    from caudal.data.neighbours.build import write_graph

    draw = np.random.default_rng(0)
    y = np.arange(NODES) % KINDS
    file = folder / "x.npy"
    x = np.lib.format.open_memmap(file, "w+", np.float32, (NODES, FEATURES))
    for first in range(0, NODES, 1 << 18):
        part = x[first : first + (1 << 18)]
        part[:] = draw.normal(0, 1, part.shape)
        part[np.arange(len(part)), y[first : first + len(part)]] += 0.5
    del x, part
    split = draw.choice(3, NODES, p=[0.8, 0.1, 0.1])
    known = np.where(draw.random(NODES) < 0.1, y, -1)
    began = time.monotonic()
    write_graph(folder / "graph", pieces, file, known, split=split)
    return {"seconds": time.monotonic() - began}


def row() -> Row:
    """Write it, learn it."""
    with tempfile.TemporaryDirectory() as name:
        written = module("graph_large", GIB, name)
        spec = Path(name) / "spec.toml"
        spec.write_text(
            f'task = "graph"\n[data]\nimages = ["{name}/graph"]\n'
            '[model]\nname = "graph_conv"\n[model.config]\nkind = "sage"\n'
            "[training]\nsteps = 400\nbatch = 256\n"
        )
        result, ended = caudal(GIB, "train", spec, "-o", Path(name) / "run", "--ram", GIB)
    peak, predicted = result["peak_bytes"]["ram"], result["predicted_bytes"]["ram"]
    return Row(
        f"one graph of {NODES:,} nodes and {EDGES:,} edges, each leading both ways; node classification with "
        "neighbours drawn from mapped files, --ram 1GiB in a real 1 GiB group",
        "written and learned in 1 GiB charged, no kill",
        ended.oom_kills == 0 and peak <= GIB and result["metrics"]["accuracy"] > 0.5,
        [
            ("written", f"{written['seconds']:.0f} s"),
            ("charged to the group, kills", f"{mib(ended.peak_charged)}, {ended.oom_kills}"),
            ("peak, predicted", f"{mib(peak)}, {mib(predicted)} ({error_of(predicted, peak)})"),
            ("nodes/s of training", f"{result['samples_per_second']:.0f}"),
            ("accuracy (a node alone: see the features)", f"{result['metrics']['accuracy']:.3f}"),
        ],
    )


if __name__ == "__main__":
    print(json.dumps(write(Path(sys.argv[1]))))
