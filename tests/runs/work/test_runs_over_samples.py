"""A run over samples learns what can be learned, inside its plan, and its model says it of others."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import caudal
from caudal.core.errors import BadValues, DataError, UsageError
from caudal.runs.spec import RunSpec

STEPS = 60


def spec(task: str, root: Path, **sections: Any) -> RunSpec:
    training = {"steps": STEPS, "batch": 8, "learning_rate": 5e-3, "checkpoint_steps": 20, "average": 10}
    training |= sections.pop("training", {})
    folder = {"images": [str(root)], **sections.pop("data", {})}
    return RunSpec.make({"task": task, "data": folder, "training": training, "device": "cpu", **sections})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of photographs of different sizes, told apart by a red or a blue square."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for kind, channel in (("blue", 2), ("red", 0)):
        for k in range(24):
            height, width = int(draw.integers(40, 70)), int(draw.integers(40, 70))
            x_HWC = draw.integers(90, 130, (height, width, 3)).astype(np.uint8)
            x_HWC[10:30, 10:30, channel] = 250
            path = root / kind / f"{k:02d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(x_HWC).save(path)
    return root


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ragged sequences of two features, one file each; the class is the sign of the first one's mean."""
    root = tmp_path_factory.mktemp("series")
    draw = np.random.default_rng(1)
    for k in range(96):
        label = k % 2
        rows = draw.normal((label - 0.5) * 2, 1, (int(draw.integers(3, 30)), 2)).astype(np.float32)
        rows[0, 1] = np.nan
        np.savez(root / f"{k:03d}.npz", x=rows, y=np.array(label))
    return root


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rings with marked nodes: the class is whether more than half of them are marked. Parts are given."""
    root = tmp_path_factory.mktemp("graphs")
    draw = np.random.default_rng(2)
    lines = []
    for k in range(120):
        nodes, label = int(draw.integers(4, 12)), k % 2
        marked = draw.random(nodes) < (0.9 if label else 0.1)
        lines.append(
            json.dumps(
                {
                    "x": [[float(m), 1.0] for m in marked],
                    "edges": [[n, (n + 1) % nodes] for n in range(nodes)],
                    "y": label,
                    "split": ("train", "train", "train", "val", "test")[k // 2 % 5],
                }
            )
        )
    (root / "all.jsonl").write_text("\n".join(lines) + "\n")
    return root


def trained(made: RunSpec, out: Path, ram: str = "1GiB") -> dict[str, Any]:
    result = caudal.train(made, out=out, ram=ram)
    assert result.metrics is not None
    assert result.peak_bytes is not None
    assert result.peak_bytes["ram"] <= 2**30
    return dict(result.metrics)


def test_classes_of_pictures_are_learned_and_said_of_new_ones(pictures: Path, tmp_path: Path) -> None:
    made = spec("classification", pictures, data={"image_px": 32}, model={"config": {"width": 8, "depth": 2}})
    plan = caudal.plan(made, ram="1GiB")
    assert "32×32×3" in str(plan)
    metrics = trained(made, tmp_path / "run")
    assert metrics["auroc"] > 0.95
    assert (tmp_path / "run" / "report.html").is_file()
    tables = json.loads((tmp_path / "run" / "tables.json").read_text())
    assert tables["classes"] == ["blue", "red"]
    again = caudal.evaluate(tmp_path / "run", pictures)
    assert again.metrics is not None
    assert again.metrics["samples"] == 48
    assert again.metrics["auroc"] is not None
    assert again.metrics["auroc"] > 0.95
    out = tmp_path / "said.csv"
    caudal.predict(tmp_path / "run", pictures / "red", out=out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    right = [row["predicted"] == "red" for row in rows]
    assert sum(right) > 20
    assert all(abs(float(row["p_red"]) + float(row["p_blue"]) - 1) < 1e-4 for row in rows)


def test_a_table_names_classes_groups_and_what_results_are_shown_by(pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = ["file,label,patient,site"]
    for kind in ("blue", "red"):
        rows += [f"{kind}/{k:02d}.png,{kind == 'red'},{kind}{k // 4},{'ab'[k % 2]}" for k in range(24)]
    table.write_text("\n".join(rows) + "\n")
    made = spec(
        "classification",
        pictures,
        data={"image_px": 32, "labels": str(table)},
        model={"config": {"width": 8, "depth": 2}},
        split={"group": "patient", "folds": 3},
        training={"steps": 20},
    )
    metrics = trained(made, tmp_path / "run")
    assert {"support_False", "support_True", "auroc_site_a", "auroc_site_b"} <= set(metrics)
    assert metrics["support_True"] == 8  # two of six patients, four pictures of each


def test_ragged_sequences_are_learned_whatever_the_micro_batch(series: Path, tmp_path: Path) -> None:
    made = spec("sequence", series, model={"name": "recurrent", "config": {"width": 8}})
    metrics = trained(made, tmp_path / "run")
    assert metrics["auroc"] > 0.95
    losses = _losses(tmp_path / "run")
    plan = caudal.plan(made, ram="1GiB")
    small = plan.model_copy(update={"point": plan.point.model_copy(update={"micro_batch": 2})})
    caudal.train(small, out=tmp_path / "small")
    np.testing.assert_allclose(_losses(tmp_path / "small"), losses, rtol=1e-3, atol=1e-5)


def test_so_few_sequences_that_a_part_would_choose_nothing_are_all_learned_from(
    series: Path, tmp_path: Path
) -> None:
    small = {"steps": 4, "batch": 8}
    made = spec(
        "sequence", series, model={"name": "temporal", "config": {"width": 4, "depth": 1}}, training=small
    )
    plan = caudal.plan(made, ram="1GiB")
    assert plan.facts.samples_per_epoch + plan.facts.held_out == 96
    assert any("learned from" in text for text in plan.warnings)
    metrics = caudal.train(plan, out=tmp_path / "run").metrics
    assert metrics is not None
    assert metrics["samples"] == plan.facts.held_out
    chooses = made.model_copy(update={"training": made.training.model_copy(update={"patience": 3})})
    kept = caudal.plan(chooses, ram="1GiB").facts
    assert kept.samples_per_epoch + kept.held_out < 96


def _losses(run: Path) -> list[float]:
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event.get("event", event.get("kind")) == "step_done"]


def test_graphs_are_learned_on_the_parts_that_the_data_name(graphs: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    made = spec("graph", graphs, model={"name": "graph_conv", "config": {"width": 16, "layers": 2}})
    metrics = trained(made, tmp_path / "run")
    assert metrics["samples"] == 24  # the part called test
    assert metrics["auroc"] > 0.95
    again = caudal.evaluate(tmp_path / "run", graphs)
    assert again.metrics is not None
    assert again.metrics["auroc"] == pytest.approx(metrics["auroc"])
    assert any("call a test" in text for text in again.warnings)
    out = tmp_path / "said.parquet"
    caudal.predict(tmp_path / "run", graphs, out=out)
    table = pytest.importorskip("pyarrow.parquet").read_table(out)
    assert table.num_rows == 120
    assert table.column_names == ["file", "sample", "predicted", "p_0", "p_1"]


def test_an_interrupted_run_goes_on_bitwise(series: Path, tmp_path: Path) -> None:
    import threading

    from caudal.core.errors import Interrupted
    from caudal.core.events import StepDone

    made = spec("sequence", series, model={"name": "temporal", "config": {"width": 8, "depth": 2}})
    plan = caudal.plan(made, ram="1GiB")
    caudal.train(plan, out=tmp_path / "whole")
    stop = threading.Event()

    def watch(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 25:
            stop.set()

    with pytest.raises(Interrupted):
        caudal.train(plan, out=tmp_path / "parts", listeners=[watch], stop=stop)
    caudal.train(plan, out=tmp_path / "parts")
    whole, parts = (
        (tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "parts")
    )
    assert whole == parts


def test_normal_images_teach_what_is_odd(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    data = tmp_path / "data"
    for kind, count in (("train/good", 12), ("test/good", 6), ("test/spot", 6)):
        for k in range(count):
            x_HWC = draw.integers(100, 140, (64, 64, 3)).astype(np.uint8)
            if kind == "test/spot":
                x_HWC[20:32, 20:32] = (250, 20, 20)
                mask = np.zeros((64, 64), np.uint8)
                mask[20:32, 20:32] = 255
                path = data / "ground_truth/spot" / f"{k}_mask.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
            path = data / kind / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x_HWC).save(path)
    for model in ("patch_memory", "rx", "autoencoder"):
        made = spec("anomaly", data, model={"name": model}, training={"steps": 40})
        metrics = trained(made, tmp_path / model)
        assert metrics["image_auroc"] == 1.0, model
        assert metrics["pixel_auroc"] > 0.95, model
        again = caudal.evaluate(tmp_path / model, data)
        assert again.metrics is not None
        assert again.metrics["pixel_auroc"] == pytest.approx(metrics["pixel_auroc"], abs=1e-3)
    out = tmp_path / "maps"
    caudal.predict(tmp_path / "rx", data / "test" / "spot", out=out)
    with (out / "anomalies.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["anomalous"] for row in rows] == ["1"] * 6
    assert len(list(out.glob("*.tif"))) == 6


def test_a_page_and_a_figure_say_why(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    made = spec(
        "classification",
        pictures,
        data={"image_px": 32},
        model={"config": {"width": 8, "depth": 2}},
        training={"steps": 20},
    )
    trained(made, tmp_path / "run")
    found = caudal.explain(tmp_path / "run", pictures / "red" / "00.png", out=tmp_path / "why.png")
    assert found.metrics is not None
    assert found.metrics["pictures"] == 1
    assert Image.open(tmp_path / "why.png").width > 500
    caudal.explain(
        tmp_path / "run", pictures / "red", out=tmp_path / "why.html", methods=["hirescam"], most=2
    )
    page = (tmp_path / "why.html").read_text()
    assert page.count("HiResCAM") >= 2
    with pytest.raises(UsageError, match="no class “green”"):
        caudal.explain(tmp_path / "run", pictures / "red", out=tmp_path / "why.html", target="green")


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"a/1": 1, "b/1": 1}, DataError, "2 samples or groups"),
        ({f"a/{k}": 1 for k in range(20)}, UsageError, "Nothing in .* says what is to be learned"),
        ({**{f"a/{k}": 1 for k in range(5)}, **{f"b/{k}": 1 for k in range(5)}}, BadValues, "A batch has 8"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(
    tmp_path: Path, files: dict[str, int], error: type[Exception], says: str
) -> None:
    for name in files:
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    with pytest.raises(error, match=says):
        caudal.plan(spec("classification", tmp_path / "data", data={"image_px": 16}))


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 5, 2)), y=np.zeros(40, np.int64))
    with pytest.raises(BadValues, match="one class alone: 0"):
        caudal.plan(spec("sequence", tmp_path))


def test_samples_without_a_label_are_left_out_and_told(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    y = np.where(np.arange(60) < 10, -1, np.arange(60) % 2)
    np.savez(tmp_path / "a.npz", x=draw.normal(size=(60, 5, 2)).astype(np.float32), y=y)
    plan = caudal.plan(spec("sequence", tmp_path))
    assert any("10 samples without a label" in text for text in plan.warnings)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_weights_from_elsewhere_learn_the_head_first_and_come_back(
    pictures: Path, tmp_path: Path, kind: str
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    source = tmp_path / "pretrained"
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
        )
        net = transformers.ResNetForImageClassification(config)
    else:
        config = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
            num_labels=5,
        )
        net = transformers.ViTForImageClassification(config)
    net.save_pretrained(source)
    made = spec(
        "classification",
        pictures,
        data={"image_px": 32},
        model={"name": "backbone", "config": {"source": str(source)}},
        training={"steps": 10, "batch": 8, "checkpoint_steps": 2, "average": 0},
    )
    assert (made.training.head_first, made.training.body_rate) == (0.2, 0.1)
    rested: list[bool] = []

    def watch(event: Any) -> None:
        from safetensors import safe_open

        from caudal.core.events import CheckpointSaved

        if isinstance(event, CheckpointSaved) and not rested:
            before = net.state_dict()
            with safe_open(event.path, framework="pt") as file:
                names = [n for n in file.keys() if n.startswith("model.net.") and n.endswith("weight")]  # noqa: SIM118
                same = [
                    torch.equal(file.get_tensor(name), before[name.removeprefix("model.net.")])
                    for name in names
                    if name.removeprefix("model.net.") in before and "classifier" not in name
                ]
            rested.append(all(same) and len(same) > 3)

    caudal.train(made, out=tmp_path / "run", ram="1GiB", listeners=[watch])
    assert rested == [True]
    again = caudal.evaluate(tmp_path / "run", pictures)
    assert again.metrics is not None
    assert again.metrics["samples"] == 48
