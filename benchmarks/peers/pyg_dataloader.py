"""PyTorch Geometric's DataLoader over a list of graphs in RAM; `node_budget` uses its dynamic sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers import child, graphs


def batches(job: child.Job) -> Iterator[Any]:
    """Batches of graphs, collated by the library."""
    import torch
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader, DynamicBatchSampler

    data = [
        Data(x=torch.from_numpy(x), edge_index=torch.from_numpy(edges.T.copy()), y=torch.tensor([y]))
        for x, edges, y in graphs.read(job.set)
    ]
    workers, budget = int(job.option("workers", 0)), job.option("node_budget", None)
    torch.manual_seed(job.seed)
    how: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    if budget:
        sampler: Any = DynamicBatchSampler(data, budget, mode="node", shuffle=True)
        loader = DataLoader(data, batch_sampler=sampler, **how)
    else:
        loader = DataLoader(data, job.batch, shuffle=True, **how)
    for _epoch in job.epochs():
        yield from loader


def columns(batch: Any) -> dict[str, Any]:
    """Lists of single graphs."""
    edges = np.asarray(batch.edge_index).T
    node_ends = np.asarray(batch.ptr)[1:]
    edge_ends = np.cumsum(np.bincount(np.asarray(batch.batch)[edges[:, 0]], minlength=len(node_ends)))
    return graphs.cut(np.asarray(batch.x), edges, np.asarray(batch.y), node_ends, edge_ends)


def arrays(batch: Any) -> list[Any]:
    """What the batch holds."""
    return [batch.x, batch.edge_index, batch.y]


if __name__ == "__main__":
    needs = ("torch", "torch_geometric.data", "torch_geometric.loader")
    child.main(child.Loader(batches, lambda _job: needs, columns, lambda batch: batch.num_graphs, arrays))
