"""Quality with default settings on real data, and the memory it took.

Every fold of the nuclei is held out once, so that the figure does not depend on a lucky split.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.children import GIB, caudal, data_dir, error_of, mib
from benchmarks.rows import Row
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.plan import make_spec


def _train(spec: RunSpec, folder: Path, limit_bytes: int) -> dict[str, Any]:
    path = folder / "spec.toml"
    path.write_text(spec.to_toml())
    result, ended = caudal(limit_bytes, "train", path, "-o", folder / "run")
    result["charged"] = ended.peak_charged
    return result


def nuclei() -> Row:
    """65 microscope images, RAM 2 GiB: IoU as the mean over the held-out images, all five folds."""
    runs = []
    for fold in range(5):
        with tempfile.TemporaryDirectory() as name:
            spec = make_spec("segmentation", data_dir() / "seg_nuclei", ram="2GiB", split={"fold": fold})
            runs.append(_train(spec, Path(name), 2 * GIB))
    ious = [run["metrics"]["iou"] for run in runs]
    figures = [(f"fold {k}", _line(run)) for k, run in enumerate(runs)]
    mean = statistics.mean(ious)
    figures.insert(0, ("IoU, mean of 5 folds", f"{mean:.3f} (pooled {_mean(runs, 'iou_pooled'):.3f})"))
    return Row(
        "Nuclei (BBBC038 part, 65 images), one fifth held out by file, default settings, 2 GiB",
        "IoU ≥ 0.80, mean over images, in at most 12 minutes a run",
        mean >= 0.80 and max(run["seconds"] for run in runs) <= 720,
        figures,
    )


def wildfire() -> Row:
    """21 five-band chips in two band orders, three seeds."""
    root = data_dir() / "seg_wildfire_s2"
    folders = [root / "b2_b3_b4_b8_b12", root / "tci_b8_b12"]
    runs = []
    for seed in range(3):
        with tempfile.TemporaryDirectory() as name:
            spec = make_spec("segmentation", folders, ram="1GiB", seed=seed)
            runs.append(_train(spec, Path(name), GIB))
    mean = _mean(runs, "iou")
    figures = [(f"seed {k}", _line(run)) for k, run in enumerate(runs)]
    figures.insert(0, ("IoU, mean of 3 seeds", f"{mean:.3f} (pooled {_mean(runs, 'iou_pooled'):.3f})"))
    return Row(
        "Burned areas (Sentinel-2, 5 bands float64, NaN, two band orders), one fifth held out, 1 GiB",
        "mean IoU ≥ 0.58 (threshold rule 0.28, a plain U-Net 0.56)",
        mean >= 0.58,
        figures,
    )


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(run["metrics"][key] for run in runs)


def _line(run: dict[str, Any]) -> str:
    peak, predicted = run["peak_bytes"]["ram"], run["predicted_bytes"]["ram"]
    return (
        f"IoU {run['metrics']['iou']:.3f}, pooled {run['metrics']['iou_pooled']:.3f}, "
        f"{run['seconds']:.0f} s, {run['samples_per_second']:.0f} samples/s, stall {run['stall']:.1%}, "
        f"peak {mib(peak)}, predicted {mib(predicted)} ({error_of(predicted, peak)}), "
        f"charged to the group {mib(run['charged'])}"
    )
