"""Graphs that PyTorch Geometric saved come back node by node and edge by edge."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caudal.data.byte_file import LocalFile
from caudal.data.sample_files.torch_file import TorchReader
from tests.data.sample_files.all_alike import MemoryFile, everything, in_threads, refusal, same

geometric = pytest.importorskip("torch_geometric.data")

READER = TorchReader()


def saved(content: Any) -> MemoryFile:
    stream = io.BytesIO()
    torch.save(content, stream)
    return MemoryFile(stream.getvalue(), "g.pt")


def graph(nodes: int, edges: int, y: Any, **others: Any) -> Any:
    return geometric.Data(
        x=torch.rand(nodes, 3),
        edge_index=torch.randint(0, max(nodes, 1), (2, edges)),
        edge_attr=torch.rand(edges, 2),
        y=y,
        **others,
    )


def joined(graphs: list[Any]) -> dict[str, Any]:
    return {
        "x": torch.cat([one.x for one in graphs]).numpy(),
        "edges": torch.cat([one.edge_index.t() for one in graphs]).numpy(),
        "edge_attr": torch.cat([one.edge_attr for one in graphs]).numpy(),
    }


GRAPHS = [
    graph(3, 4, torch.tensor([1.0])),
    graph(1, 0, torch.tensor([0.0])),
    graph(2, 5, torch.tensor([2.0])),
]


@pytest.mark.parametrize("how", ["list", "InMemoryDataset", "data and slices"])
def test_graphs_come_back(how: str, tmp_path: Path) -> None:
    path = tmp_path / "graphs.pt"
    if how == "InMemoryDataset":
        geometric.InMemoryDataset.save(GRAPHS, str(path))
    elif how == "list":
        torch.save(GRAPHS, path)
    else:
        torch.save(geometric.InMemoryDataset.collate(GRAPHS), path)
    for whole in (False, True):
        part = READER.part(LocalFile(path), whole)
        assert {field.name: field.shape for field in part.fields} == {
            "x": (None, 3), "edges": (None, 2), "edge_attr": (None, 2), "y": ()
        }  # fmt: skip
        assert [field.name for field in part.fields] == ["x", "edges", "edge_attr", "y"]
        assert part.rows["x"].tolist() == [3, 1, 2]
        assert part.rows["edges"].tolist() == [4, 0, 5]
        assert bool(part.left_out) == whole
    found = everything(READER, LocalFile(path))
    for name, expected in joined(GRAPHS).items():
        assert same(found[name], expected)
    assert same(found["y"], np.array([1, 0, 2], "f4"))


@pytest.mark.parametrize("how", ["alone", "InMemoryDataset", "list"])
def test_a_graph_alone_is_one_sample(how: str, tmp_path: Path) -> None:
    path, one = tmp_path / "graph.pt", graph(3, 4, torch.rand(1, 5), pos=torch.rand(3, 2))
    if how == "InMemoryDataset":
        geometric.InMemoryDataset.save([one], str(path))
    else:
        torch.save(one if how == "alone" else [one], path)
    for whole in (False, True):
        part = READER.part(LocalFile(path), whole)
        assert part.samples == 1
        assert {field.name: field.shape for field in part.fields}["y"] == (5,)
        assert [line for line in part.left_out if "pos" in line]
        found = everything(READER, LocalFile(path), whole)
        assert same(found["edges"], one.edge_index.t().contiguous().numpy())
        assert same(found["y"], one.y.numpy())


def test_targets_of_nodes_are_ragged(tmp_path: Path) -> None:
    graphs = [graph(n, 1, torch.arange(n)) for n in (3, 1, 2)]
    for how in (geometric.InMemoryDataset.save, lambda data, path: torch.save(data, path)):
        how(graphs, str(tmp_path / "g.pt"))
        part = READER.part(LocalFile(tmp_path / "g.pt"), whole=False)
        assert part.rows["y"].tolist() == [3, 1, 2]
        assert everything(READER, LocalFile(tmp_path / "g.pt"))["y"].tolist() == [0, 1, 2, 0, 0, 1]


def test_edges_of_narrow_numbers_become_int64() -> None:
    one = geometric.Data(x=torch.rand(3, 1), edge_index=torch.tensor([[0, 1], [1, 2]], dtype=torch.int32))
    assert same(everything(READER, saved(one))["edges"], np.array([[0, 1], [1, 2]]))


def test_graphs_with_broken_parts_are_refused() -> None:
    refusal(
        READER, saved(geometric.Data(x=torch.rand(3, 1), edge_index=torch.zeros(3, 4, dtype=torch.int64)))
    )
    refusal(READER, saved([GRAPHS[0], geometric.Data(x=torch.rand(3, 3))]))
    refusal(READER, saved(geometric.Data(text="nothing")))
    data, slices = geometric.InMemoryDataset.collate(GRAPHS)
    for wrong in ([0, 3, 2, 6], [1, 3, 4, 6], [0, 3, 4, 7], [0, 6]):
        refusal(READER, saved((data, {**slices, "x": torch.tensor(wrong)})))


def test_what_may_be_unpickled_is_the_same_after_graphs_were_read() -> None:
    before = set(torch.serialization.get_safe_globals())
    file = saved(GRAPHS)
    in_threads(lambda: everything(READER, file))
    assert set(torch.serialization.get_safe_globals()) == before
