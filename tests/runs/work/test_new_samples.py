"""A trained model and samples that are not as those of its training: taken, or refused in a sentence."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caudal
from caudal.core.errors import BadValues
from caudal.runs.work.set_model import SetModel
from caudal.runs.work.sets import Sets
from tests.runs.work.untrained import asked, untrained

DRAW = np.random.default_rng(0)


def ragged(path: Path, lengths: list[int], y: Any = None) -> Path:
    rows, ends = sum(lengths), np.cumsum(lengths)
    truth = {"y": np.arange(len(lengths)) % 2} if y is None else {"y": y(rows), "y.ends": ends}
    np.savez(path, **{"x": DRAW.normal(size=(rows, 2)).astype(np.float32), "x.ends": ends, **truth})
    return path


def fixed(path: Path, steps: int, count: int = 24) -> Path:
    np.savez(path, x=DRAW.normal(size=(count, steps, 2)).astype(np.float32), y=np.arange(count) % 2)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def said_of(run: Path, data: Path, out: Path) -> list[dict[str, str]]:
    caudal.predict(run, data, out=out, ram="2GiB")
    return rows_of(out)


def test_lengths_may_be_others_than_in_training(tmp_path: Path) -> None:
    out = tmp_path / "said.csv"
    of_any = untrained(asked("sequence", ragged(tmp_path / "a.npz", [3, 5, 2, 9] * 6)), tmp_path / "any")
    assert len(said_of(of_any, fixed(tmp_path / "b.npz", 7), out)) == 24
    of_seven = untrained(asked("sequence", tmp_path / "b.npz"), tmp_path / "seven")
    assert len(said_of(of_seven, fixed(tmp_path / "c.npz", 5, 9), out)) == 9
    assert len(said_of(of_seven, tmp_path / "a.npz", out)) == 24
    result = caudal.evaluate(of_seven, tmp_path / "c.npz", ram="2GiB")
    assert any("5 steps of 2 features" in text and "7 steps" in text for text in result.warnings)


def test_as_long_or_not_a_sequence_means_the_same(tmp_path: Path) -> None:
    x = DRAW.normal(size=(6, 4, 2)).astype(np.float32)
    np.savez(tmp_path / "beside.npz", x=x, y=np.arange(6) % 2)
    ends = np.arange(4, 25, 4)
    np.savez(tmp_path / "joined.npz", **{"x": x.reshape(24, 2), "x.ends": ends, "y": np.arange(6) % 2})
    run = untrained(asked("sequence", ragged(tmp_path / "a.npz", [3, 5, 2, 9] * 6)), tmp_path / "run")
    one, other = (said_of(run, tmp_path / f"{k}.npz", tmp_path / "said.csv") for k in ("beside", "joined"))
    assert [row["p_1"] for row in one] == [row["p_1"] for row in other]


def test_a_row_is_written_for_every_step(tmp_path: Path) -> None:
    lengths = [3, 1, 4, 2] * 6
    data = ragged(tmp_path / "a.npz", lengths, lambda rows: np.arange(rows) % 3)
    run = untrained(asked("sequence", data), tmp_path / "run")
    np.savez(tmp_path / "new.npz", **{"x": np.load(data)["x"], "x.ends": np.cumsum(lengths)})  # no truth
    rows = said_of(run, tmp_path / "new.npz", tmp_path / "said.csv")
    places = [(str(k), str(place)) for k, length in enumerate(lengths) for place in range(length)]
    assert [(row["sample"], row["place"]) for row in rows] == places
    for row in rows:
        p = [float(row[f"p_{k}"]) for k in range(3)]
        assert row["predicted"] == str(int(np.argmax(p)))
        assert abs(sum(p) - 1) < 1e-4


def graphs(path: Path, **changed: Any) -> Path:
    """Rings of 3 nodes, as arrays."""
    count = 20
    edges = np.tile([[0, 1], [1, 2], [2, 0]], (count, 1))
    held = {
        "x": DRAW.normal(size=(3 * count, 2)).astype(np.float32),
        "x.ends": np.arange(3, 3 * count + 1, 3),
        "edges": edges,
        "edges.ends": np.arange(3, 3 * count + 1, 3),
        "y": np.arange(count) % 2,
    }
    np.savez(path, **{**held, **changed})
    return path


def test_a_row_is_written_for_every_node(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    ends = np.arange(3, 61, 3)
    data = graphs(tmp_path / "g.npz", y=np.arange(60) % 2, **{"y.ends": ends})
    run = untrained(asked("graph", data), tmp_path / "run")
    out = tmp_path / "said.csv"
    rows = said_of(run, data, out)
    assert [(row["sample"], row["place"]) for row in rows] == [
        (str(k), str(n)) for k in range(20) for n in range(3)
    ]
    model = SetModel.load(run, "cpu")
    opened, spec = model.open(str(data), None, lambda _done, _total: None)
    _numbers, (found, _truth) = next(iter(model.each(opened, spec, opened.members)))
    np.testing.assert_allclose([float(row["p_1"]) for row in rows], found[:, 0], rtol=1e-4)


@pytest.mark.parametrize(
    ("node", "words"),
    [(3, "Graph 4 of g.npz has 3 nodes, and an edge from 1 to 3"), (-1, "an edge from 1 to -1")],
)
def test_an_edge_that_leaves_its_graph_is_named(node: int, words: str, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    run = untrained(asked("graph", graphs(tmp_path / "good.npz")), tmp_path / "run")
    edges = np.tile([[0, 1], [1, 2], [2, 0]], (20, 1))
    edges[13] = (1, node)
    with pytest.raises(BadValues, match=words):
        caudal.evaluate(run, graphs(tmp_path / "g.npz", edges=edges), ram="2GiB")


@pytest.mark.parametrize("edges", [np.zeros((60, 3), int), np.zeros((60, 2), np.float32), np.zeros(60, int)])
def test_what_is_no_pair_of_nodes_is_no_edge(edges: Any, tmp_path: Path) -> None:
    with pytest.raises(BadValues, match="an edge is two whole numbers"):
        Sets.open(asked("graph", graphs(tmp_path / "g.npz", edges=edges)))


def test_what_is_missing_in_new_samples_is_counted(tmp_path: Path) -> None:
    run = untrained(asked("sequence", fixed(tmp_path / "a.npz", 4)), tmp_path / "run")
    x = DRAW.normal(size=(10, 4, 2)).astype(np.float32)
    x[:, :, 0] = np.nan
    np.savez(tmp_path / "half.npz", x=x, y=np.arange(10) % 2)
    for verb, more in ((caudal.evaluate, {}), (caudal.predict, {"out": tmp_path / "said.csv"})):
        result = verb(run, tmp_path / "half.npz", ram="2GiB", **more)  # type: ignore[operator]
        assert sum("50.0% of the values are missing" in text for text in result.warnings) == 1


def test_missing_features_of_edges_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    attributes = DRAW.normal(size=(60, 1)).astype(np.float32)
    attributes[::4] = np.nan
    more = {"edge_attr": attributes, "edge_attr.ends": np.arange(3, 61, 3)}
    made = asked("graph", graphs(tmp_path / "g.npz", **more))
    work = Sets.open(made)
    found = work.opened.kind.statistics(work.samples, work.inputs, 1, 0)
    assert any("25.0% of the values of “edge_attr”" in text for text in found.warnings)
    result = caudal.evaluate(untrained(made, tmp_path / "run"), tmp_path / "g.npz", ram="2GiB")
    assert any("25.0% of the values of “edge_attr”" in text for text in result.warnings)


def test_an_estimate_of_what_is_missing_says_that_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = DRAW.normal(size=(60, 4, 2)).astype(np.float32)
    x[:, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 2)
    work = Sets.open(asked("sequence", tmp_path / "a.npz"))
    assert work.opened.kind.statistics(work.samples, work.inputs, 1, 0).warnings[0].startswith("25.0%")
    monkeypatch.setattr("caudal.runs.work.series.LOOKED_AT", 20)
    assert work.opened.kind.statistics(work.samples, work.inputs, 1, 0).warnings[0].startswith("About 25.0%")
