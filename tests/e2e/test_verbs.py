"""The main job from end to end on real files: plan, train, evaluate, predict, report, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from caudal.core import events
from caudal.runs.verbs.evaluate import evaluate
from caudal.runs.verbs.predict import predict


def caudal(*words: str, **env: str) -> tuple[int, dict[str, Any], str]:
    """Run the command with --json: exit code, the last line's object, and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", "from caudal.cli.main import main; main()", *words, "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"CAUDAL_LANG": "en"} | env,
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) <= 1, "standard output holds more than the object"
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


def test_a_run_leaves_all_that_it_promises(tiny_run: Path) -> None:
    names = {p.name for p in tiny_run.iterdir()}
    assert {
        "spec.toml", "plan.json", "scan.json", "events.jsonl", "result.json", "report.html",
        "model", "checkpoints", "tensorboard",
    } <= names  # fmt: skip
    assert not list(tiny_run.rglob("*.part"))
    result = json.loads((tiny_run / "result.json").read_text())
    assert result["metrics"]["iou"] > 0.6
    assert result["peak_bytes"]["ram"] <= result["budget_bytes"]["ram"]
    kinds = [event.kind for event in events.read(tiny_run / "events.jsonl")]
    assert kinds[-1] == "run_ended"
    assert kinds.count("step_done") == 60
    assert {"run_started", "validated", "checkpoint_saved"} <= set(kinds)
    assert "iou" in (tiny_run / "report.html").read_text()


def test_evaluation_of_the_held_out_images_repeats_the_figure(tiny_run: Path, tiny_set: Path) -> None:
    plan = json.loads((tiny_run / "plan.json").read_text())
    images = sorted((tiny_set / "images").iterdir())
    rows = [f"images/{images[i].name},masks/{images[i].name}" for i in plan["held_out"]]
    table = tiny_set / "held_out.csv"
    table.write_text("image,mask\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = evaluate(tiny_run, table, ram="1GiB")
    stored = json.loads((tiny_run / "result.json").read_text())["metrics"]
    assert found.metrics is not None
    assert found.metrics["iou"] == pytest.approx(stored["iou"], abs=1e-6)


def test_a_map_is_a_cog_on_the_image_s_own_grid(tiny_run: Path, tiny_set: Path, tmp_path: Path) -> None:
    image = sorted((tiny_set / "images").iterdir())[6]
    out = tmp_path / "mapa ñ.tif"
    result = predict(tiny_run, image, out=out, ram="1GiB")
    valid, errors, _warnings = cog_validate(str(out))
    assert (valid, errors) == (True, [])
    with rasterio.open(image) as a, rasterio.open(out) as b:
        assert (a.shape, a.crs, a.transform) == (b.shape, b.crs, b.transform)
        assert set(np.unique(b.read(1))) <= {0, 1}
    assert result.metrics is not None
    assert result.metrics["coverage"] == 1.0


def test_the_verbs_agree_on_a_terminal(tiny_run: Path, tiny_set: Path, tmp_path: Path) -> None:
    code, made, _ = caudal(
        "plan", "segmentation", str(tiny_set), "--ram", "1GiB", "-o", str(tmp_path / "s.toml")
    )
    assert code == 0
    assert made["predicted_bytes"]["ram"] <= made["budget_bytes"]["ram"]
    assert (tmp_path / "s.toml").is_file()
    code, found, _ = caudal("evaluate", str(tiny_run), str(tiny_set), "--ram", "1GiB")
    assert code == 0
    assert found["metrics"]["iou"] > 0.6
    code, found, _ = caudal("predict", str(tiny_run), str(tiny_set / "images"), "-o", str(tmp_path / "maps"))
    assert code == 0
    assert len(list((tmp_path / "maps").glob("*.tif"))) == 10
    code, found, _ = caudal("report", str(tiny_run))
    assert code == 0
    assert Path(found["output"]).is_file()
    code, found, _ = caudal("doctor")
    assert code == 0
    assert any("cgroup" in fact["name"] for fact in found["facts"])


def test_no_gpu_is_error_6_and_never_a_fallback(tiny_run: Path, tiny_set: Path, tmp_path: Path) -> None:
    for words in (
        ("train", "segmentation", str(tiny_set), "-o", str(tmp_path / "r"), "--device", "cuda"),
        ("predict", str(tiny_run), str(tiny_set / "images"), "-o", str(tmp_path / "m"), "--device", "cuda"),
    ):
        code, found, _ = caudal(*words, CUDA_VISIBLE_DEVICES="")
        assert code == 6
        assert found["error"]["code"] == "device_missing"
    assert not (tmp_path / "r").exists()


def test_a_budget_too_small_is_error_3_with_the_least_and_its_holders(tiny_set: Path, tmp_path: Path) -> None:
    masks = tiny_set / "masks"
    before = {p: p.stat().st_atime_ns for p in masks.iterdir()}
    code, found, _ = caudal(
        "train", "segmentation", str(tiny_set), "-o", str(tmp_path / "r"), "--ram", "176MiB"
    )
    assert code == 3
    assert "MiB" in found["error"]["message"]
    assert "interpreter" in found["error"]["message"]
    assert "--ram" in found["error"]["hint"]
    assert not (tmp_path / "r").exists()
    assert before
    code, found, _ = caudal(
        "train", "segmentation", str(tiny_set), "-o", str(tmp_path / "r"), "--ram", "20MiB"
    )
    assert code == 3


def test_a_finished_run_is_not_overwritten(tiny_run: Path, tiny_set: Path) -> None:
    spec = tiny_run / "spec.toml"
    before = spec.read_bytes()
    code, found, _ = caudal("train", str(spec), "-o", str(tiny_run))
    assert code == 2
    assert "finished" in found["error"]["message"]
    code, found, _ = caudal("train", "segmentation", str(tiny_set), "-o", str(tiny_run), "--seed", "9")
    assert code == 2
    assert spec.read_bytes() == before


def test_an_output_never_overwrites_an_input(tiny_run: Path, tiny_set: Path) -> None:
    image = sorted((tiny_set / "images").iterdir())[0]
    before = image.read_bytes()
    code, found, _ = caudal("predict", str(tiny_run), str(image), "-o", str(image))
    assert (code, found["error"]["code"]) == (2, "usage")
    assert image.read_bytes() == before


def test_errors_speak_spanish_when_asked(tmp_path: Path) -> None:
    code, found, _ = caudal("plan", "segmentation", str(tmp_path / "nada"), CAUDAL_LANG="es")
    assert code == 4
    assert "no " in found["error"]["message"].lower()
    assert (
        found["error"]["message"]
        != caudal("plan", "segmentation", str(tmp_path / "nada"))[1]["error"]["message"]
    )
