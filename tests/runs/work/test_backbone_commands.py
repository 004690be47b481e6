"""What the guide says of a folder of pretrained weights works from end to end, on a folder made here."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import caudal

SPEC = """
task = "classification"
ram = "1GiB"
device = "cpu"

[data]
images = ["photos"]
image_px = 32

[model]
name = "backbone"

[model.config]
source = "backbones/tiny"

[training]
steps = 16
batch = 8
average = 4
"""


def command(folder: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", "from caudal.cli.main import main; main()", *words, "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"CAUDAL_LANG": "en", "XDG_CACHE_HOME": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_a_local_folder_is_trained_evaluated_predicted_and_explained(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("captum")
    draw = np.random.default_rng(0)
    for kind, channel in (("blue", 2), ("red", 0)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for k in range(16):
            x_HWC = draw.integers(60, 160, (36, 40, 3)).astype(np.uint8)
            x_HWC[8:28, 8:28, channel] = 250
            Image.fromarray(x_HWC).save(tmp_path / "photos" / kind / f"{k:02d}.jpg", quality=95)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=7
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "backbones" / "tiny")
    (tmp_path / "spec.toml").write_text(SPEC)

    trained = command(tmp_path, "train", "spec.toml", "-o", "runs/photos")
    assert trained["metrics"]["auroc"] is not None
    run, photos = tmp_path / "runs" / "photos", tmp_path / "photos"
    card = json.loads((run / "model" / "model.json").read_text())
    assert card["architecture"] == "backbone"
    assert card["inputs"]["data"]["normalize"] == "set"
    # The model's folder stands for itself: what it began with may go.
    (tmp_path / "backbones" / "tiny" / "model.safetensors").unlink()
    scored = caudal.evaluate(run, photos)
    assert scored.metrics is not None
    assert scored.metrics["samples"] == 32
    caudal.predict(run, photos, out=tmp_path / "said.csv")
    with (tmp_path / "said.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 32
    caudal.explain(run, photos / "red", out=tmp_path / "why.html", most=1, methods=["hirescam"])
    page = (tmp_path / "why.html").read_text()
    # There is none where the few pictures that are kept to choose by leave nothing to mend.
    assert ("Calibrated" in page) == ("temperature" in card["inputs"]["chosen"])
    for part in ("HiResCAM", "How it was trained", "Deletion", "data:image/png"):
        assert part in page, part
    assert "its training curves are not shown" not in page
