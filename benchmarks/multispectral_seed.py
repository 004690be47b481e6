"""The seed's task from end to end: 190 images, train, threshold, and the heat map of a 3000×4000 image.

Caudal through its command line in a real group of 1 GiB, beside the seed's first way: all images in memory as
float32, patches of 64 px in batches of 4, all reconstructions in one array for the threshold, and a map from
overlapping patches. The same network, and two passes over the images on both sides.

The seed cuts its patches every 32 px (713 an image in its own log), so that it learns from each pixel four
times a pass. What runs here is cut every 64 px, as many pixels as Caudal learns from; what its own patches
take is told by the time of a step.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from benchmarks.children import GIB, caudal, mib, module
from benchmarks.rows import Row

IMAGES, SIDE, BANDS, EPOCHS = 190, 713, 5, 2
HIGH, WIDE = 3000, 4000
PATCH, STRIDE, BATCH = 64, 32, 4  # the seed's own
HELD_OUT = 5  # one in five, on both sides
OURS_BATCH, OURS_PATCH = 16, 256


def row() -> Row:
    """Both ways once; `CAUDAL_SEED_WAYS` chooses one."""
    ways = os.environ.get("CAUDAL_SEED_WAYS", "ours,seed").split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("CAUDAL_SEED_SET", name))
        truth_HW = make(folder)
        found = {way: {"ours": ours, "seed": seed}[way](folder) for way in ways}
        for way in ways:
            found[way]["auroc"] = _area(folder / f"{way}.tif", truth_HW)
    figures = [
        (way, f"{one['seconds']:.0f} s ({one['parts']}); {mib(one['charged'])} charged, "
         f"{one['kills']} kills; pixel AUROC of planted anomalies {one['auroc']:.3f}")
        for way, one in found.items()
    ]  # fmt: skip
    if "ours" in found and "seed" in found:
        mine = found["ours"]["seconds"]
        figures += [
            ("as many pixels to learn from", f"{found['seed']['seconds'] / mine:.2f} × as fast"),
            ("the seed's own patches", f"{found['seed']['own_seconds'] / mine:.2f} × as fast as "
             f"{found['seed']['own_seconds']:.0f} s, told by the time of a step"),
        ]  # fmt: skip
    return judged(found, figures)


def judged(found: dict[str, dict[str, Any]], figures: list[tuple[str, str]]) -> Row:
    """The row of what was found; of one way alone it is not met."""
    met = False
    if "ours" in found and "seed" in found:
        fast = found["seed"]["own_seconds"] >= 6 * found["ours"]["seconds"]
        met = fast and not found["ours"]["kills"] and found["ours"]["charged"] <= GIB
    return Row(
        f"{IMAGES} images of {SIDE}²×{BANDS} uint16 LZW, {EPOCHS} epochs of an autoencoder, threshold, map "
        f"of {HIGH}×{WIDE}×{BANDS}; Caudal in a real 1 GiB group, the seed's way in 8 GiB",
        "within 1 GiB charged, and ≥ 6 × as fast as the seed's way",
        met,
        figures,
    )


def make(folder: Path) -> npt.NDArray[np.bool_]:
    """Textured images to learn from and a large one with odd discs; where these are."""
    from tests.data.sets import write_tiff

    options = {"compress": "lzw", "interleave": "pixel"}
    if not (folder / "large.tif").exists():
        for number in range(IMAGES):
            x_HWC = _textured(SIDE, SIDE, number)
            write_tiff(folder / "images" / f"{number:03d}.tif", x_HWC.astype(np.uint16), **options)
        x_HWC, odd_HW = _textured(HIGH, WIDE, IMAGES), np.zeros((HIGH, WIDE), bool)
        draw = np.random.default_rng(0)
        rows, cols = np.ogrid[:31, :31]
        disc_HW = (rows - 15) ** 2 + (cols - 15) ** 2 <= 12**2
        for _number in range(150):
            row, col = draw.integers(0, HIGH - 31), draw.integers(0, WIDE - 31)
            odd_HW[row : row + 31, col : col + 31] |= disc_HW
        x_HWC[odd_HW] += np.array([500, -500, 500, -500, 500])
        write_tiff(folder / "large.tif", x_HWC.astype(np.uint16), **options)
        np.save(folder / "odd.npy", odd_HW)
    found: npt.NDArray[np.bool_] = np.load(folder / "odd.npy")
    return found


def _textured(high: int, wide: int, number: int) -> npt.NDArray[np.float64]:
    draw = np.random.default_rng(number)
    rows, cols = np.ogrid[:high, :wide]
    bands = [
        np.sin(rows / draw.uniform(20, 90)) + np.cos(cols / draw.uniform(20, 90)) for _band in range(BANDS)
    ]
    return 3000 + 600 * np.stack(bands, 2) + draw.normal(0, 60, (high, wide, BANDS))


def ours(folder: Path) -> dict[str, Any]:
    """The command line, its start included."""
    learned = IMAGES - IMAGES // HELD_OUT
    steps = round(EPOCHS * learned * SIDE**2 / (OURS_BATCH * OURS_PATCH**2))
    spec, run = folder / "spec.toml", folder / f"run {time.time_ns()}"
    spec.write_text(
        f'task = "anomaly"\n[data]\nimages = ["{folder / "images"}"]\npatch_px = {OURS_PATCH}\n'
        f'[model]\nname = "autoencoder"\n[training]\nsteps = {steps}\nbatch = {OURS_BATCH}\n'
        f'validate_every = {steps}\nprecision = "auto"\n'
    )
    began = time.perf_counter()
    _trained, one = caudal(GIB, "train", spec, "-o", run, "--ram", "1GiB")
    trained = time.perf_counter()
    _mapped, two = caudal(
        GIB, "predict", run, folder / "large.tif", "-o", folder / "ours.tif", "--ram", "1GiB"
    )
    ended = time.perf_counter()
    return {
        "seconds": ended - began,
        "parts": f"training and threshold {trained - began:.0f}, map {ended - trained:.0f}",
        "charged": max(one.peak_charged, two.peak_charged),
        "kills": one.oom_kills + two.oom_kills,
    }


def seed(folder: Path) -> dict[str, Any]:
    """The seed's way in a process that starts anew."""
    began = time.perf_counter()
    found = module("multispectral_seed", 8 * GIB, folder)
    seconds = time.perf_counter() - began
    often = (len(_starts(SIDE)) / len(range(0, SIDE - PATCH + 1, PATCH))) ** 2 - 1
    return found | {"seconds": seconds, "own_seconds": seconds + often * found["learning"], "kills": 0}


def seed_way(folder: Path) -> dict[str, Any]:
    """Everything in memory, in plain torch, fp32."""
    import resource

    import torch
    import torch.nn.functional as F

    from caudal.models.autoencoder import Autoencoder, AutoencoderConfig

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    began = time.perf_counter()
    images = []
    for path in sorted((folder / "images").iterdir()):
        with rasterio.open(path) as file:
            x_CHW = file.read().astype(np.float32)
        images.append((x_CHW - x_CHW.min()) / (x_CHW.max() - x_CHW.min() + 1e-8))
    cut = range(0, SIDE - PATCH + 1, PATCH)
    held = IMAGES // HELD_OUT
    train, val = (
        np.stack([x[:, r : r + PATCH, c : c + PATCH] for x in part for r in cut for c in cut])
        for part in (images[held:], images[:held])
    )
    loaded = time.perf_counter()
    model = Autoencoder(BANDS, 1, AutoencoderConfig(smooth_px=0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    draw = np.random.default_rng(0)
    for _epoch in range(EPOCHS):
        model.train()
        order = draw.permutation(len(train))
        for start in range(0, len(order), BATCH):
            x = torch.from_numpy(train[order[start : start + BATCH]])
            loss = F.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained = time.perf_counter()
    model.eval()
    with torch.no_grad():
        again = np.concatenate(
            [model(torch.from_numpy(val[k : k + BATCH])).numpy() for k in range(0, len(val), BATCH)]
        )
        threshold = float(np.percentile(((again - val) ** 2).mean((1, 2, 3)), 95))
        learned = time.perf_counter()
        with rasterio.open(folder / "large.tif") as file:
            x_CHW, profile = file.read().astype(np.float32), file.profile
        x_CHW = (x_CHW - x_CHW.min()) / (x_CHW.max() - x_CHW.min() + 1e-8)
        sums, counts = np.zeros((HIGH, WIDE), np.float32), np.zeros((HIGH, WIDE), np.float32)
        places = [(r, c) for r in _starts(HIGH) for c in _starts(WIDE)]
        for k in range(0, len(places), BATCH):
            some = places[k : k + BATCH]
            x = torch.from_numpy(np.stack([x_CHW[:, r : r + PATCH, c : c + PATCH] for r, c in some]))
            for (r, c), error in zip(some, ((model(x) - x) ** 2).mean(1).numpy(), strict=True):
                sums[r : r + PATCH, c : c + PATCH] += error
                counts[r : r + PATCH, c : c + PATCH] += 1
    with rasterio.open(folder / "seed.tif", "w", **profile | {"count": 1, "dtype": "float32"}) as out:
        out.write(sums / counts, 1)
    ended = time.perf_counter()
    parts = (
        f"loading {loaded - began:.0f}, training {trained - loaded:.0f}, "
        f"threshold {learned - trained:.0f}, map {ended - learned:.0f}"
    )
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"parts": parts, "charged": resident, "threshold": threshold, "learning": learned - loaded}


def _starts(length: int) -> list[int]:
    return sorted({*range(0, length - PATCH, STRIDE), length - PATCH})


def _area(path: Path, truth_HW: npt.NDArray[np.bool_]) -> float:
    from sklearn.metrics import roc_auc_score

    with rasterio.open(path) as file:
        scores_HW = file.read(1)
    known = np.isfinite(scores_HW)
    return float(roc_auc_score(truth_HW[known], scores_HW[known]))


if __name__ == "__main__":
    print(json.dumps(seed_way(Path(sys.argv[1]))))
