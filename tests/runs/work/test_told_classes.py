"""New data name their classes themselves: a model scores them by the names, however files number them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import caudal
from caudal.core.errors import DataError
from tests.runs.work.untrained import asked, untrained

DRAW = np.random.default_rng(0)


def folders(root: Path, names: Sequence[str], each: int = 6) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for k in range(each):
            Image.fromarray(DRAW.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(
                root / name / f"{k}.png"
            )
    return root


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pictures that are blue or red."""
    root = tmp_path_factory.mktemp("colours")
    made = asked("classification", folders(root / "set", ("blue", "red")), data={"image_px": 16})
    return untrained(made, root / "run")


def supports(run: Path, data: Path, **more: Path) -> tuple[dict[str, float | None], str]:
    result = caudal.evaluate(run, data, ram="2GiB", **more)
    assert result.metrics is not None
    found = {k.removeprefix("support_"): v for k, v in result.metrics.items() if k.startswith("support_")}
    return found, " ".join(result.warnings)


def test_folders_are_matched_by_name_and_strange_ones_are_named(colours: Path, tmp_path: Path) -> None:
    found, said = supports(colours, folders(tmp_path / "a", ("red", "zebra")))
    assert found == {"blue": 0, "red": 6}
    assert "6 samples" in said
    assert "zebra" in said
    found, said = supports(colours, folders(tmp_path / "b", ("azure", "red"), 4))
    assert found == {"blue": 0, "red": 4}
    found, said = supports(colours, folders(tmp_path / "c", ("blue", "red"), 3))
    assert found == {"blue": 3, "red": 3}
    assert "no class that the model learned" not in said


def test_data_whose_classes_are_all_strange_are_refused(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat, dog"):
        caudal.evaluate(colours, folders(tmp_path / "set", ("cat", "dog")), ram="2GiB")


def test_a_table_is_matched_by_name(colours: Path, tmp_path: Path) -> None:
    data = folders(tmp_path / "set", ("all",))
    table = tmp_path / "labels.csv"
    labels = ("red", "blue", "green", "red", "red", "")
    table.write_text("file,label\n" + "".join(f"all/{k}.png,{name}\n" for k, name in enumerate(labels)))
    found, said = supports(colours, data, labels=table)
    assert found == {"blue": 1, "red": 3}
    assert "green" in said
    table.write_text("file,class\n" + "".join(f"all/{k}.png,red\n" for k in range(6)))
    assert supports(colours, data, labels=table)[0] == {"blue": 0, "red": 6}  # another usual name
    table.write_text("file,label\n" + "".join(f"all/{k}.png,{k % 2}\n" for k in range(6)))
    with pytest.raises(DataError, match="No class"):
        caudal.evaluate(colours, data, labels=table, ram="2GiB")


def test_explanations_name_the_truth_by_its_name(colours: Path, tmp_path: Path) -> None:
    from caudal.runs.seen import open_eyes

    eyes = open_eyes(colours, "cpu")
    data = folders(tmp_path / "set", ("azure", "red"), 2)
    pictures = eyes.look(str(data), None, 4, lambda _done, _total: None)
    assert [one.truth for one in pictures.each(512)] == [None, None, "red", "red"]
    assert any("azure" in text for text in eyes.warnings())


def test_predictions_ask_for_no_class(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "said.csv"
    caudal.predict(colours, folders(tmp_path / "set", ("cat", "dog"), 2), out=out, ram="2GiB")
    with out.open() as file:
        assert {row["predicted"] for row in csv.DictReader(file)} <= {"blue", "red"}


def beats(path: Path, labels: Sequence[str]) -> Path:
    """A table of series with a column of texts."""
    rows = ["a,b,c,label"]
    rows += [",".join(f"{v:.3f}" for v in DRAW.normal(size=3)) + f",{name}" for name in labels]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_texts_of_a_table_of_series_are_matched_by_name(tmp_path: Path) -> None:
    made = asked("sequence", beats(tmp_path / "train.csv", ("a", "b", "c") * 10))
    run = untrained(made, tmp_path / "run")
    assert supports(run, beats(tmp_path / "b.csv", ("b",) * 60))[0] == {"a": 0, "b": 60, "c": 0}
    found, said = supports(run, beats(tmp_path / "more.csv", ("c", "a", "x", "y", "a")))
    assert found == {"a": 2, "b": 0, "c": 1}
    assert "2 samples" in said
    why = tmp_path / "why.html"
    result = caudal.explain(run, beats(tmp_path / "why.csv", ("c", "x")), out=why, ram="2GiB")
    assert any("x" in text for text in result.warnings)
    with pytest.raises(DataError, match="No class"):
        caudal.evaluate(run, beats(tmp_path / "none.csv", ("x", "y") * 4), ram="2GiB")


def test_numbers_and_texts_of_the_same_name_are_the_same_class(tmp_path: Path) -> None:
    x = DRAW.normal(size=(30, 4, 2)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, y=np.arange(30) % 3)
    run = untrained(asked("sequence", tmp_path / "train.npz"), tmp_path / "run")
    np.savez(tmp_path / "more.npz", x=x, y=np.repeat([2, 5, 0], 10))
    found, said = supports(run, tmp_path / "more.npz")
    assert found == {"0": 10, "1": 0, "2": 10}
    assert "(5)" in said
    np.savez(tmp_path / "none.npz", x=x, y=np.full(30, 7))
    with pytest.raises(DataError, match="7"):
        caudal.evaluate(run, tmp_path / "none.npz", ram="2GiB")
    np.savez(tmp_path / "wide.npz", x=x, y=np.zeros((30, 5)))
    with pytest.raises(DataError, match="not what the model learned"):
        caudal.evaluate(run, tmp_path / "wide.npz", ram="2GiB")


def test_graphs_of_a_class_that_was_not_learned_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")

    def lines(path: Path, labels: Sequence[int]) -> Path:
        graph = {"x": [[1.0], [2.0]], "edges": [[0, 1]]}
        path.write_text("".join(json.dumps({**graph, "y": name}) + "\n" for name in labels))
        return path

    run = untrained(asked("graph", lines(tmp_path / "train.jsonl", (4, 2) * 9)), tmp_path / "run")
    found, said = supports(run, lines(tmp_path / "more.jsonl", (4, 3, 4)))
    assert found == {"2": 0, "4": 2}
    assert "(3)" in said
