"""Seed 003's claim: a whole training on photographs, Caudal beside the naive pipeline and tf.data.

The naive one is Keras' ImageDataGenerator in plain torch: all pictures in memory as float32, with copies for
the parts, each changed by itself on the CPU, then the step, in fp32. The other is the seed's mend: tf.data,
and the model in Keras. The same network, pictures, epochs and batch; each way in a process of its own, whose
clock starts when its libraries are loaded (of Caudal's, those of planning).
"""

from __future__ import annotations

import csv
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.cgroups import run_in_group

from benchmarks.children import GIB, data_dir, last_object, mib
from benchmarks.peers.setup import python_of
from benchmarks.rows import Row

COPIES, EPOCHS, BATCH, SIDE = 8, 5, 32, 128
ROUNDS = int(os.environ.get("CAUDAL_PHOTOGRAPH_ROUNDS", "3"))
WAYS = ("caudal", "naive", "tf.data")
_ROOM = 12 * GIB


def row() -> Row:
    """The ways in turn; each round draws other weights and another order."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        root = make(Path(name) / "set")
        for number in range(ROUNDS):
            for way in WAYS:
                found[way].append(run(way, root, number))
                print(way, found[way][-1], flush=True)
    naive, caudal, tensorflow = found["naive"], found["caudal"], found["tf.data"]
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(naive, caudal, strict=True)]
    beside = [a["seconds"] / b["seconds"] for a, b in zip(tensorflow, caudal, strict=True)]
    bounds = [one["seconds"] / one["parts"]["steps"] for one in naive]
    memory = statistics.median(a["charged"] / b["charged"] for a, b in zip(caudal, naive, strict=True))
    spread = [one["auroc"] for one in naive]
    mine = statistics.mean(one["auroc"] for one in caudal)
    alike = min(spread) <= mine
    return Row(
        f"{COPIES} copies of 193 dermoscopic pictures of 512 px, {EPOCHS} epochs of batches of {BATCH} at "
        f"{SIDE} px, the same small residual network; whole training, data included; {ROUNDS} rounds",
        "≥ 6 × the naive pipeline, ≤ half of its memory, AUROC within its spread or above",
        statistics.median(ratios) >= 6 and memory <= 0.5 and alike,
        [
            ("naive ÷ Caudal, time", _span(ratios)),
            ("tf.data ÷ Caudal, time", _span(beside)),
            ("naive ÷ its steps alone: the most that a pipeline can win with its step", _span(bounds)),
            ("Caudal's memory ÷ the naive one's", f"{memory:.2f}"),
            *((way, _words(rounds)) for way, rounds in found.items()),
        ],
    )


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def _words(rounds: list[dict[str, Any]]) -> str:
    parts = ", ".join(
        f"{key} {statistics.median(one['parts'][key] for one in rounds):.1f} s" for key in rounds[0]["parts"]
    )
    return (
        f"{statistics.median(one['seconds'] for one in rounds):.1f} s ({parts}), "
        f"{statistics.median(one['cpu_seconds'] for one in rounds):.0f} s of processors with its start; "
        f"{mib(statistics.median(one['charged'] for one in rounds))} charged; AUROC "
        + ", ".join(f"{one['auroc']:.3f}" for one in rounds)
    )


def run(way: str, root: Path, number: int) -> dict[str, Any]:
    """One training; seconds, charged bytes of its process tree, and AUROC of the part held out."""
    script = Path(__file__).with_name("photographs_tf.py")
    command = {
        "caudal": [sys.executable, "-m", "benchmarks.photographs_speed", "caudal"],
        "naive": [sys.executable, "-m", "benchmarks.photographs_speed", "naive"],
        "tf.data": [str(python_of("tensorflow")), str(script)],
    }[way]
    words = [str(root), str(number), str(EPOCHS), str(BATCH), str(SIDE)]
    env = {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"} if way == "tf.data" else {}
    before = _used()
    ended = run_in_group([*command, *words], _ROOM, 900, **env)
    return last_object(ended) | {"charged": ended.peak_charged, "cpu_seconds": _used() - before}


def _used() -> float:
    """Processor seconds of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make(folder: Path) -> Path:
    """Copies of the pictures, each a little brighter and saved anew; a CSV says which part each is of."""
    from PIL import Image, ImageEnhance

    source = data_dir() / "lesion"
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    with (source / "labels.csv").open() as file:
        lines = list(csv.DictReader(file))
    rows = []
    for label in ("0", "1"):
        mine = [line["file"] for line in lines if line["label"] == label]
        for place, name in enumerate(draw.permutation(mine).tolist()):
            part = "test" if place % 5 == 0 else "val" if place % 5 == 1 else "train"
            for copy in range(COPIES if part == "train" else 1):
                with Image.open(source / "images" / name) as picture:
                    changed = ImageEnhance.Brightness(picture).enhance(1 + 0.02 * copy)
                    changed.save(folder / "images" / f"{copy} {name}", quality=92)
                rows.append((f"{copy} {name}", label, part))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("file", "label", "split"), *rows])
    return folder


def ours(root: Path, number: int, epochs: int, batch: int, side: int) -> dict[str, Any]:
    """The program's own recipe, but for the number of steps."""
    import caudal as cd
    from caudal.runs.verbs.plan import make_spec

    began = time.perf_counter()
    with (root / "labels.csv").open() as file:
        count = sum(line["split"] == "train" for line in csv.DictReader(file))
    in_epoch = count // batch
    made = make_spec(
        "classification",
        root / "images",
        labels=root / "labels.csv",
        split={"together": False},  # its parts are given
        training={"steps": epochs * in_epoch, "batch": batch, "validate_every": in_epoch},
        ram="512MiB",
        seed=number,
    )
    spec = made.model_copy(update={"data": made.data.model_copy(update={"image_px": side})})
    planned = cd.plan(spec)
    ready = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        result = cd.train(planned, out=Path(name) / "run")
    ended = time.perf_counter()
    parts = {"planning": ready - began, "training": ended - ready}
    return {"seconds": ended - began, "auroc": result.metrics["auroc"], "parts": parts}


def naive(root: Path, number: int, epochs: int, batch: int, side: int) -> dict[str, Any]:
    """Everything in memory, picture by picture, fp32."""
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from sklearn.metrics import roc_auc_score

    from caudal.models.residual import ResidualConfig, ResidualNet

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(number)
    draw = np.random.default_rng(number)
    began = time.perf_counter()
    with (root / "labels.csv").open() as file:
        lines = list(csv.DictReader(file))
    pictures = []
    for line in lines:
        with Image.open(root / "images" / line["file"]) as picture:
            small = picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            pictures.append(np.asarray(small, np.float32))
    x_NHWC, y_N = np.stack(pictures), np.array([int(line["label"]) for line in lines])
    part = np.array([line["split"] for line in lines])
    parts = {name: (x_NHWC[part == name], y_N[part == name]) for name in ("train", "val", "test")}
    loaded = time.perf_counter()
    model = ResidualNet(3, 1, ResidualConfig())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.3)
    x_NHWC, y_N = parts["train"]
    weight = torch.tensor(float((y_N == 0).sum() / (y_N == 1).sum()))

    steps = 0.0

    def flow() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = draw.permutation(len(x_NHWC))
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            made = np.stack([scaled(changed(x_NHWC[k], draw)) for k in chosen])
            yield torch.from_numpy(made.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y_N[chosen]).float()

    def scores(name: str) -> float:
        model.eval()
        x, y = parts[name]
        with torch.no_grad():
            found = [
                model(torch.from_numpy(scaled(x[k : k + 32]).transpose(0, 3, 1, 2).copy()))[:, 0]
                for k in range(0, len(x), 32)
            ]
        return float(roc_auc_score(y, torch.cat(found).numpy()))

    for _epoch in range(epochs):
        model.train()
        for x, y in flow():
            given = time.perf_counter()
            loss = F.binary_cross_entropy_with_logits(model(x)[:, 0], y, pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += time.perf_counter() - given
        scores("val")
    found = scores("test")
    ended = time.perf_counter()
    times = {"loading": loaded - began, "steps": steps, "changing and scoring": ended - loaded - steps}
    return {"seconds": ended - began, "auroc": found, "parts": times}


def scaled(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """From -1 to 1, as `preprocess_input` has it."""
    return x / np.float32(127.5) - np.float32(1)


def changed(x_HWC: npt.NDArray[np.float32], draw: np.random.Generator) -> npt.NDArray[np.float32]:
    """A picture turned and zoomed band by band with scipy, as Keras' generator does it, and flipped."""
    from scipy.ndimage import affine_transform

    angle = np.deg2rad(draw.uniform(-15, 15))
    zoom = draw.uniform(0.8, 1.2)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    middle = (np.array(x_HWC.shape[:2]) - 1) / 2
    offset = middle - matrix @ middle
    bands = [
        affine_transform(band, matrix, offset, order=1, mode="nearest") for band in np.moveaxis(x_HWC, 2, 0)
    ]
    turned = np.stack(bands, 2)
    turned = np.clip(turned * draw.uniform(0.9, 1.1), 0, 255).astype(np.float32)
    return turned[:, ::-1] if draw.random() < 0.5 else turned


if __name__ == "__main__":
    if sys.argv[1] == "caudal":
        from caudal.runs.machine import settle

        settle()
        from caudal.runs.verbs import plan  # noqa: F401 - torch is loaded after planning, as on a terminal
    else:
        for name in ("scipy.ndimage", "sklearn.metrics", "torch"):
            import_module(name)
    way = {"caudal": ours, "naive": naive}[sys.argv[1]]
    print("\n" + json.dumps(way(Path(sys.argv[2]), *map(int, sys.argv[3:]))))
