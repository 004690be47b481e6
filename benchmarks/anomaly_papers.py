"""Three kinds of paper: Caudal's defaults beside anomalib's PatchCore and PaDiM, fitted on good images.

The peers have the small backbone of their documentation with random weights (no pretrained ones are at hand
for any side), and once more the very features that Caudal's memory of patches has. Each way is one process
without workers that takes the papers in turn; its clocks start when its libraries are loaded.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cgroups import run_in_group

from benchmarks.children import GIB, data_dir, last_object, mib
from benchmarks.peers.setup import python_of
from benchmarks.rows import Row

PEERS = ("patchcore", "padim", "patchcore, same features", "padim, same features")
IMAGE, PIXEL = 0.99, 0.95
_ROOM = 8 * GIB


def row() -> Row:
    """Every way once; `CAUDAL_ANOMALY_WAYS` chooses peers."""
    root = data_dir() / "anomaly_paper"
    papers = sorted(path for path in root.iterdir() if (path / "train").is_dir())
    chosen = [way for way in os.environ.get("CAUDAL_ANOMALY_WAYS", ";".join(PEERS)).split(";") if way]
    found: dict[str, tuple[dict[str, Any], int]] = {}
    with tempfile.TemporaryDirectory() as name:
        features = write_features(Path(name) / "features.pt")
        command = [sys.executable, "-m", "benchmarks.anomaly_papers", *map(str, papers)]
        ended = run_in_group(command, _ROOM, 900)
        found["Caudal, defaults"] = last_object(ended), ended.peak_charged
        script = str(Path(__file__).with_name("anomaly_peers.py"))
        for way in chosen:
            command = [str(python_of("anomaly")), script, way, str(features), *map(str, papers)]
            ended = run_in_group(command, _ROOM, 900, PYTHONPATH="")
            found[f"anomalib's {way}"] = last_object(ended), ended.peak_charged
            print(way, words(*found[f"anomalib's {way}"]), sep=": ", flush=True)
    ours = found["Caudal, defaults"][0].values()
    return Row(
        "three papers of PIPED, learned from 32 good images each, 64 others scored; "
        "beside anomalib 2.7 with random weights (resnet18) and with the same features; PatchCore keeps one "
        "patch in a hundred: for its default, one in ten, it takes a round each, 3275 a paper",
        f"image AUROC ≥ {IMAGE}, pixel AUROC ≥ {PIXEL} on each paper, with defaults",
        all(one["image_auroc"] >= IMAGE and one["pixel_auroc"] >= PIXEL for one in ours),
        [(way, words(each, charged)) for way, (each, charged) in found.items()],
    )


def words(each: dict[str, dict[str, float]], charged: int) -> str:
    """Figures of a way, paper by paper, and what its process took."""

    def column(key: str, form: str, factor: float = 1.0) -> str:
        return ", ".join(format(one[key] * factor, form) for one in each.values())

    return (
        f"image AUROC {column('image_auroc', '.4f')}; pixel AUROC {column('pixel_auroc', '.4f')}; "
        f"fitting {column('fit_seconds', '.1f')} s; "
        f"scoring {column('image_seconds', '.0f', 1000)} ms an image; {mib(charged)} charged"
    )


def write_features(path: Path) -> Path:
    """The features of `patch_memory` of three bands as a program for others."""
    import torch

    from caudal.models.patch_features import LocalFeatures

    torch.jit.trace(LocalFeatures(3), torch.zeros(2, 3, 128, 128)).save(str(path))  # type: ignore[no-untyped-call]
    return path


def measure(root: Path) -> dict[str, float]:
    """Plan, train and evaluate one paper in this process."""
    import caudal as cd

    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        run = cd.train("anomaly", root / "train" / "good", out=Path(name) / "run", ram="1GiB")
        fitted = time.perf_counter()
        found = cd.evaluate(Path(name) / "run", root)
        ended = time.perf_counter()
        del run
    images = sum(1 for _path in (root / "test").glob("*/*"))
    return {
        "image_auroc": float(found.metrics["image_auroc"] or 0),
        "pixel_auroc": float(found.metrics["pixel_auroc"] or 0),
        "fit_seconds": fitted - began,
        "image_seconds": (ended - fitted) / images,
    }


if __name__ == "__main__":
    from caudal.runs.machine import settle

    settle()
    import caudal.runs.verbs.evaluate
    import caudal.runs.verbs.train  # noqa: F401

    print(json.dumps({Path(root).name: measure(Path(root)) for root in sys.argv[1:]}))
