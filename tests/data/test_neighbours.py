"""A graph on disk says every node's neighbours, however little memory wrote it; draws are fair and fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.errors import BadValues, UnreadableFile, UsageError
from caudal.data.neighbours import build
from caudal.data.neighbours.build import write_graph
from caudal.data.neighbours.draw import draw_trees
from caudal.data.neighbours.one_graph import OneGraph, is_one_graph, open_graph


def made(folder: Path, nodes: int, edges: np.ndarray, **how: object) -> OneGraph:
    x = np.arange(nodes, dtype=np.float32)[:, None]
    write_graph(folder, lambda: np.array_split(edges, 3), x, np.arange(nodes) % 2, **how)  # type: ignore[arg-type]
    return open_graph(folder)


def neighbours(graph: OneGraph) -> list[list[int]]:
    starts, counts = graph.starts_of(np.arange(graph.nodes))
    pairs = zip(starts.tolist(), counts.tolist(), strict=True)
    return [sorted(graph.neighbours_E[a : a + n].tolist()) for a, n in pairs]


@settings(max_examples=30)
@given(data=st.data(), undirected=st.booleans())
def test_every_edge_is_with_the_node_that_it_leads_to(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, undirected: bool
) -> None:
    nodes = data.draw(st.integers(1, 12))
    one = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    edges = np.array(data.draw(st.lists(one, max_size=60)), np.int64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_PIECE", 7)  # so that edges are dealt into many files
        graph = made(tmp_path_factory.mktemp("g") / "g", nodes, edges, undirected=undirected, work_bytes=1)
    wanted: list[list[int]] = [[] for _node in range(nodes)]
    for a, b in edges.tolist():
        wanted[b].append(a)
        if undirected and a != b:
            wanted[a].append(b)
    assert neighbours(graph) == [sorted(found) for found in wanted]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> OneGraph:
    """A star of 40 leaves around node 0, a chain, and a node alone."""
    star = [[0, k] for k in range(1, 41)]
    return made(tmp_path_factory.mktemp("graph") / "g", 44, np.array([*star, [41, 42]]))


def test_trees_have_neighbours_alone_and_all_of_few(graph: OneGraph) -> None:
    near = neighbours(graph)
    trees = draw_trees(graph, np.array([0, 41, 43, 7]), (5, 3), seed=1, epoch=0)
    assert trees.nodes_N[:4].tolist() == [0, 41, 43, 7]
    for a, b in trees.edges_2E.T.tolist():
        assert trees.nodes_N[a] in near[trees.nodes_N[b]]
        assert trees.root_N[a] == trees.root_N[b]
    into = np.bincount(trees.edges_2E[1], minlength=len(trees.nodes_N))
    assert into[:4].tolist() == [5, 1, 0, 1]
    assert len(set(trees.nodes_N[trees.edges_2E[0][trees.edges_2E[1] == 0]].tolist())) >= 4


def test_what_is_drawn_for_a_node_does_not_depend_on_the_others(graph: OneGraph) -> None:
    roots = np.array([0, 5, 0, 42])
    together = draw_trees(graph, roots, (6, 4), 3, 2)
    for k, root in enumerate(roots.tolist()):
        alone = draw_trees(graph, np.array([root]), (6, 4), 3, 2)
        assert together.nodes_N[together.root_N == k].tolist() == alone.nodes_N.tolist()
    other = draw_trees(graph, roots, (6, 4), 3, 3)
    assert other.nodes_N.tolist() != together.nodes_N.tolist()


def test_every_neighbour_is_drawn_as_often_as_any_other(graph: OneGraph) -> None:
    counts = np.zeros(44)
    for epoch in range(1500):
        trees = draw_trees(graph, np.zeros(1, np.int64), (6,), 0, epoch)
        np.add.at(counts, trees.nodes_N[1:], 1)
    share = counts[1:41] / 1500
    assert abs(share.mean() - 6 / 40) < 1e-9
    assert np.abs(share - 6 / 40).max() < 0.05


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    edges = np.array([[0, 1], [1, 2]])
    with pytest.raises(BadValues, match="not there"):
        made(tmp_path / "a", 2, edges)
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.iterdir())
    made(tmp_path / "b", 3, edges)
    assert is_one_graph(tmp_path / "b")
    with pytest.raises(UsageError, match="already"):
        made(tmp_path / "b", 3, edges)
    with pytest.raises(BadValues, match="known"):
        write_graph(tmp_path / "c", lambda: [edges], np.zeros((3, 1)), np.full(3, -1))
    for name in ("ends.npy", "neighbours.npy", "x.npy"):
        file = tmp_path / "b" / name
        whole = file.read_bytes()
        for cut in (0, 60, len(whole) - 1):
            file.write_bytes(whole[:cut])
            with pytest.raises(UnreadableFile):
                open_graph(tmp_path / "b")
        file.write_bytes(whole)
    np.save(tmp_path / "b" / "ends.npy", np.array([1, 0, 4]))
    with pytest.raises(UnreadableFile, match="rise"):
        open_graph(tmp_path / "b")
    np.save(tmp_path / "b" / "ends.npy", np.array([1, 2, 9]))
    with pytest.raises(UnreadableFile, match="number of edges"):
        open_graph(tmp_path / "b")
