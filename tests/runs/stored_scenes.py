"""A stored segmentation model that learned nothing, for tests of what verbs do around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from caudal.core.units import MIB
from caudal.data.classes import Classes
from caudal.data.normalize import Normalization
from caudal.models import weights


def untrained(path: Path, width: int = 4, depth: int = 2) -> Path:
    """A run of three bands and two classes, with nothing in it but its model."""
    torch.manual_seed(1)
    config = {"width": width, "depth": depth, "stem": 1}
    card = weights.ModelCard(
        task="segmentation", architecture="unet", config=config, bands=3, outputs=2,
        normalization=Normalization.plain(3).model_dump(mode="json"),
        classes=Classes(values=(0, 255)).model_dump(mode="json"),
        memory={"device": "cpu", "forwards": [{"side_px": 256, "ram": 4 * MIB, "seconds": 0.1}]},
    )  # fmt: skip
    weights.save(path / "model", weights.build("unet", 3, 2, config), card)
    return path


def pairs(folder: Path, *sizes: tuple[int, int]) -> Path:
    """Pictures of these sizes in `images`, and a mask of each in `masks`."""
    draw = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        x_HWC = draw.integers(80, 120, (height, width, 3)).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[10:20, 10:30] = 255
        for name, picture in (("images", x_HWC), ("masks", mask)):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return folder
