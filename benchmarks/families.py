"""Models of every family on sets that are made for them: what random runs are drawn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.data.sets import blob_set

Draw = Callable[..., Any]
"""One of the values given."""


@dataclass(frozen=True)
class Drawn:
    """A run: its spec without the data, the budgets that are worth a try in MiB, and what it infers on."""

    family: str
    spec: dict[str, Any]
    budgets_mib: tuple[int, int]
    infers: str = ""


def make_sets(folder: Path) -> dict[str, Path]:
    """All sets, small on disk: scenes of 3, 5 and 8 bands, good scenes, pictures, series, graphs."""
    made = {f"scenes {b}": blob_set(folder / f"set {b}", [(400, 500)] * 10, bands=b) for b in (3, 5, 8)}
    made |= {"pictures": _pictures(folder / "pictures"), "series": _series(folder / "series")}
    return made | {"graphs": _graphs(folder / "graphs")}


def unet(one_of: Draw) -> Drawn:
    """U-Nets over scenes."""
    bands = one_of(3, 5, 8)
    config = {"width": one_of(8, 16, 24, 32), "depth": one_of(2, 3, 4), "stem": one_of(1, 2)}
    data = {"set": f"scenes {bands}", "patch_px": one_of(64, 96, 128)}
    return Drawn("U-Net", _spec("segmentation", data, one_of, config=config), (300, 1100), "images")


def autoencoder(one_of: Draw) -> Drawn:
    """Convolutional autoencoders over good scenes."""
    bands = one_of(3, 5, 8)
    config = {"width": one_of(8, 16, 32), "depth": one_of(2, 3)}
    data = {"set": f"scenes {bands}/images", "patch_px": one_of(64, 96, 128)}
    spec = _spec("anomaly", data, one_of, name="autoencoder", config=config)
    return Drawn("autoencoder", spec, (300, 900), ".")


def residual(one_of: Draw) -> Drawn:
    """Residual networks over pictures."""
    config = {"width": one_of(16, 32, 48), "depth": one_of(2, 3), "blocks": one_of(1, 2)}
    data = {"set": "pictures", "image_px": one_of(48, 64, 96)}
    return Drawn("ResNet", _spec("classification", data, one_of, config=config), (320, 1000), ".")


def convnext(one_of: Draw) -> Drawn:
    """ConvNeXt of small sizes over pictures."""
    wide = one_of(16, 32, 48)
    options = {
        "hidden_sizes": [wide, 2 * wide, 4 * wide, 8 * wide],
        "depths": one_of([1, 1, 2, 1], [2, 2, 2, 2]),
    }
    spec = _spec(
        "classification", {"set": "pictures", "image_px": one_of(64, 96, 128)}, one_of,
        name="backbone", config={"kind": "convnext", "options": options},
    )  # fmt: skip
    return Drawn("ConvNeXt", spec, (450, 1300), ".")


def vit(one_of: Draw) -> Drawn:
    """Vision transformers of small sizes over pictures."""
    wide, side = one_of(64, 128, 192), one_of(64, 96, 128)
    options = {
        "hidden_size": wide, "intermediate_size": 4 * wide, "num_attention_heads": 4,
        "num_hidden_layers": one_of(4, 8), "image_size": side, "patch_size": 16,
    }  # fmt: skip
    spec = _spec(
        "classification", {"set": "pictures", "image_px": side}, one_of,
        name="backbone", config={"kind": "vit", "options": options},
    )  # fmt: skip
    return Drawn("ViT", spec, (450, 1300), ".")


def lstm(one_of: Draw) -> Drawn:
    """LSTMs over ragged series."""
    config = {"width": one_of(32, 64, 128), "layers": one_of(1, 2)}
    return Drawn(
        "LSTM", _spec("sequence", {"set": "series"}, one_of, name="recurrent", config=config), (300, 900), "."
    )


def graph_conv(one_of: Draw) -> Drawn:
    """Message passing over small graphs."""
    config = {"width": one_of(32, 64, 128), "layers": one_of(3, 5)}
    return Drawn("GNN", _spec("graph", {"set": "graphs"}, one_of, config=config), (400, 1000), ".")


FAMILIES = (unet, autoencoder, residual, convnext, vit, lstm, graph_conv)


def _spec(
    task: str, data: dict[str, Any], one_of: Draw, name: str = "", config: dict[str, Any] | None = None
) -> dict[str, Any]:
    model = {"config": config or {}} | ({"name": name} if name else {})
    # So many that a heap has grown to what it will be: after twelve it was a tenth less for some.
    training = {"steps": 60, "batch": one_of(8, 16, 32), "average": one_of(0, 10), "validate_every": 60}
    return {"task": task, "data": data, "model": model, "training": training}


def _pictures(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for kind in ("bright", "dark"):
        (folder / kind).mkdir(parents=True)
        for k in range(80):
            high, wide = (int(side) for side in draw.integers(90, 260, 2))
            x_HWC = draw.integers(0, 120, (high, wide, 3)) + (110 if kind == "bright" else 0)
            Image.fromarray(x_HWC.astype(np.uint8)).save(folder / kind / f"{k:03d}.jpg", quality=85)
    return folder


def _series(folder: Path) -> Path:
    draw = np.random.default_rng(1)
    folder.mkdir()
    for k in range(400):
        steps = int(np.clip(draw.lognormal(4.2, 0.6), 5, 400))
        x = draw.normal(k % 2 - 0.5, 1, (steps, 6)).astype(np.float32)
        np.savez(folder / f"{k:04d}.npz", x=x, y=np.array(k % 2))
    return folder


def _graphs(folder: Path) -> Path:
    draw = np.random.default_rng(2)
    folder.mkdir()
    lines = []
    for k in range(600):
        nodes = int(np.clip(draw.lognormal(3.2, 0.5), 4, 200))
        ring = [[n, (n + 1) % nodes] for n in range(nodes)]
        edges = ring + draw.integers(0, nodes, (nodes, 2)).tolist()
        x = draw.normal(k % 2 - 0.5, 1, (nodes, 9)).round(3).tolist()
        lines.append(json.dumps({"x": x, "edges": edges, "y": k % 2}))
    (folder / "graphs.jsonl").write_text("\n".join(lines) + "\n")
    return folder
