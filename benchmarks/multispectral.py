"""Anomalies of four kinds planted in real and made scenes of many bands: what each model finds in 512 MiB."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from benchmarks.children import MIB, caudal, data_dir, mib
from benchmarks.multispectral_planted import KINDS, Mask, made, sentinel
from benchmarks.rows import Row

LIMIT = 512 * MIB
STEPS = 200
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "autoencoder": ("autoencoder", {}, {"steps": STEPS, "batch": 16, "precision": "auto"}),
    "patch_memory": ("patch_memory", {}, {}),
    "rx, global": ("rx", {"background": "global"}, {}),
    "rx, local": ("rx", {"background": "local"}, {}),
}


def row(models: tuple[str, ...] = tuple(MODELS), judged: int = 12) -> Row:
    """Train and map with every model, each in real groups of 512 MiB."""
    raster = data_dir() / "raster" / "s2_20181013_8band_2201x2629.tif"
    figures, again, most = [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learned, whole, mask_HW = sentinel(raster, folder / "real")
        small, scenes, masks = made(folder / "made", 24, judged, 512)
        for label in models:
            for place, good, given in (
                ("8-band Sentinel-2", learned, whole),
                ("5-band scenes", small, scenes),
            ):
                found = run(folder / label / place, good, given, label)
                maps = [found["out"]] if given == whole else sorted(found["out"].glob("*.tif"))
                heat = [read(path) for path in maps]
                truth = [mask_HW] if given == whole else masks
                again, most = again + found["again"], max(most, found["charged"])
                figures.append((f"{label}, {place}", f"{words(areas(heat, truth))}; {times(found)}"))
                print(*figures[-1], sep=": ", flush=True)
    return Row(
        f"pixel AUROC of planted anomalies ({', '.join(KINDS)}) in a 2201×2629×8 Sentinel-2 raster (learned "
        f"from windows of its left half) and in {judged} made scenes of 512²×5; autoencoder: {STEPS} steps; "
        "training and maps through the command line, each in a real group of 512 MiB",
        "every run keeps within 512 MiB charged and is never killed (a probe that tries a step may be)",
        most <= LIMIT and not again,
        figures,
    )


def run(folder: Path, good: Path, given: Path, label: str) -> dict[str, Any]:
    """Train, and map what is given; the larger of both peaks."""
    name, config, training = MODELS[label]
    folder.mkdir(parents=True)
    spec = {"task": '"anomaly"', "data": {"images": [str(good)]}, "model": {"name": name, "config": config}}
    if training:
        spec["training"] = training
    (folder / "spec.toml").write_text(toml(spec))
    trained, one = caudal(LIMIT, "train", folder / "spec.toml", "-o", folder / "run", "--ram", "512MiB")
    out = folder / ("heat.tif" if given.is_file() else "heat")
    starts = (folder / "run" / "events.jsonl").read_text().count('"run_started"')
    again = starts - 1 if starts else one.oom_kills  # what learns in one pass says of no start
    mapped, two = caudal(LIMIT, "predict", folder / "run", given, "-o", out, "--ram", "512MiB")
    return {
        "out": out,
        "charged": max(one.peak_charged, two.peak_charged),
        "kills": one.oom_kills - again,
        "again": two.oom_kills + again,
        "train_seconds": trained["seconds"],
        "map_seconds": mapped["seconds"],
    }


def toml(spec: dict[str, Any]) -> str:
    """A spec; JSON's strings, numbers and lists are TOML's."""
    lines = []
    for key, value in spec.items():
        if isinstance(value, str):
            lines.append(f"{key} = {value}")
            continue
        lines.append(f"[{key}]")
        for inner, found in value.items():
            shown = (
                "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in found.items()) + "}"
                if isinstance(found, dict)
                else json.dumps(found)
            )
            lines.append(f"{inner} = {shown}")
    return "\n".join(lines) + "\n"


def read(path: Path) -> npt.NDArray[np.float32]:
    """A heat map, NaN where nothing is valid."""
    with rasterio.open(path) as file:
        scores_HW: npt.NDArray[np.float32] = file.read(1, masked=True).filled(np.nan)
    return scores_HW


def areas(heat: list[npt.NDArray[np.float32]], truth: list[Mask]) -> dict[str, float]:
    """Pixel AUROC of each kind against all normal pixels, and of all kinds together."""
    from sklearn.metrics import roc_auc_score

    scores = np.concatenate([h.ravel() for h in heat])
    kinds = np.concatenate([m.ravel() for m in truth])
    known = (kinds != 255) & np.isfinite(scores)
    scores, kinds = scores[known], kinds[known]
    found = {}
    for number, kind in enumerate(KINDS, 1):
        chosen = (kinds == number) | (kinds == 0)
        found[kind] = float(roc_auc_score(kinds[chosen] > 0, scores[chosen]))
    found["all"] = float(roc_auc_score(kinds > 0, scores))
    return found


def words(found: dict[str, float]) -> str:
    """Areas in a line."""
    return ", ".join(f"{kind} {value:.3f}" for kind, value in found.items())


def times(found: dict[str, Any]) -> str:
    """Seconds and memory of a run in a line."""
    return (
        f"training {found['train_seconds']:.0f} s, map {found['map_seconds']:.0f} s, "
        f"{mib(found['charged'])} charged, {found['again']} kills of runs, {found['kills']} of probes"
    )
