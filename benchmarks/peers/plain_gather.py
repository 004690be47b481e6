"""The plain truth: everything in RAM (or mapped), offsets, and a gather for each batch; no library at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers import child, graphs
from benchmarks.peers.sources import needs, source


@dataclass
class Joined:
    """Graphs joined into one: node numbers in `edges` count through the batch."""

    x: np.ndarray
    edges: np.ndarray
    y: np.ndarray
    node_ends: np.ndarray
    edge_ends: np.ndarray


def batches(job: child.Job) -> Iterator[Any]:
    """Gathered batches in a shuffled order."""
    gather: Any = Graphs(job.set) if job.kind == "graphs" else source(job).batch
    count = int(job.facts["samples"])
    for epoch in job.epochs():
        order = np.random.default_rng((job.seed, epoch)).permutation(count)
        for first in range(0, count, job.batch):
            # Sorted, a gather from pages goes forward; the set of samples is the same.
            yield gather(np.sort(order[first : first + job.batch]))


class Graphs:
    """All graphs, end to end, with the place of each."""

    def __init__(self, folder: str) -> None:
        found = graphs.read(folder)
        self.x = np.concatenate([x for x, _edges, _y in found])
        self.edges = np.concatenate([edges for _x, edges, _y in found])
        self.y = np.array([y for _x, _edges, y in found])
        self.node_ends = np.cumsum([len(x) for x, _edges, _y in found])
        self.edge_ends = np.cumsum([len(edges) for _x, edges, _y in found])

    def __call__(self, wanted: np.ndarray) -> Joined:
        rows, nodes = ranges(self.node_ends, wanted)
        lines, edges = ranges(self.edge_ends, wanted)
        node_ends = np.cumsum(nodes)
        shift = np.repeat(node_ends - nodes, edges)
        return Joined(
            self.x[rows], self.edges[lines] + shift[:, None], self.y[wanted], node_ends, np.cumsum(edges)
        )


def ranges(ends: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the wanted entries, one after the other, and how many each has."""
    starts = np.where(wanted > 0, ends[wanted - 1], 0)
    lengths = ends[wanted] - starts
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return np.arange(int(lengths.sum())) + shift, lengths


def columns(batch: Any) -> dict[str, Any]:
    """Single samples."""
    if not isinstance(batch, Joined):
        return dict(batch)
    return graphs.cut(batch.x, batch.edges, batch.y, batch.node_ends, batch.edge_ends)


def count(batch: Any) -> int:
    """Samples of a batch."""
    return len(batch.y) if isinstance(batch, Joined) else len(next(iter(batch.values())))


def arrays(batch: Any) -> list[Any]:
    """What the batch holds."""
    return [batch.x, batch.edges, batch.y] if isinstance(batch, Joined) else child.flat(columns, batch)


def imports(job: child.Job) -> tuple[str, ...]:
    """Libraries of the set's format."""
    return () if job.kind == "graphs" else needs(job)


if __name__ == "__main__":
    child.main(child.Loader(batches, imports, columns, count, arrays))
