"""PatchCore and PaDiM of anomalib on sets in MVTec's layout, as it is documented, in its own environment.

`python anomaly_peers.py WAY FEATURES SET…`. Knows nothing of Caudal but the file FEATURES: the features of
its `patch_memory` as a program, for the ways that are to have the same ones. Backbones have random weights.
Prints a JSON object with figures for each set.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

BANK_ROWS = 2184
"""So many patches Caudal's memory keeps of these features by default."""
KEPT = {"patchcore": 0.01, "patchcore, a tenth kept": 0.1}
"""The shares of patches that PatchCore keeps: one that its authors tell of, and anomalib's default."""


def shim() -> None:
    """Let torchvision be imported where its compiled operators do not load: none of them is used here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_kept"] = library


class SameFeatures(nn.Module):
    """Stands where anomalib has its backbone."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.program = torch.jit.load(str(file))
        self.out_dims = [self.program(torch.zeros(1, 3, 32, 32)).shape[1]]

    def forward(self, x_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """One layer."""
        return {"same": self.program(x_BCHW)}


def make(way: str, features: Path, root: Path) -> Any:
    """A model of anomalib, with its defaults or with the same features."""
    from anomalib.models import Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Normalize

    torch.manual_seed(0)
    quiet = {"visualizer": False, "pre_trained": False}
    if way in KEPT:
        return Patchcore(backbone="resnet18", coreset_sampling_ratio=KEPT[way], **quiet)
    if way == "padim":
        return Padim(backbone="resnet18", **quiet)
    known = SameFeatures(features)
    quiet["pre_processor"] = PreProcessor(transform=Normalize(*band_statistics(root)))
    if way == "patchcore, same features":
        count = len(list((root / "train" / "good").iterdir())) * 64 * 64
        model = Patchcore(backbone="resnet18", coreset_sampling_ratio=BANK_ROWS / count, **quiet)
        model.model.feature_extractor, model.model.layers = known, ["same"]
        return model
    model = Padim(backbone="resnet18", n_features=known.out_dims[0], **quiet)
    model.model.feature_extractor, model.model.layers = known, ["same"]
    model.model.idx = torch.arange(known.out_dims[0])
    return model


def band_statistics(root: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of each band of the good images, of values from 0 to 1."""
    from PIL import Image

    x = (
        np.stack([np.asarray(Image.open(p).convert("RGB")) for p in (root / "train" / "good").iterdir()])
        / 255
    )
    return x.mean((0, 1, 2)).tolist(), x.std((0, 1, 2)).tolist()


def measure(way: str, features: Path, root: Path) -> dict[str, float]:
    """Fit on the good images and score the rest."""
    from anomalib.data import Folder
    from anomalib.engine import Engine

    torch.manual_seed(0)
    data = Folder(
        name=root.name,
        root=root,
        normal_dir="train/good",
        abnormal_dir="test/defect",
        normal_test_dir="test/good",
        mask_dir="ground_truth/defect",
        val_split_mode="same_as_test",
        num_workers=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
            limit_val_batches=0,
        )  # fmt: skip
        model = make(way, features, root)
        began = time.perf_counter()
        engine.fit(model=model, datamodule=data)
        fitted = time.perf_counter()
        (found,) = engine.test(model=model, datamodule=data, verbose=False)
        ended = time.perf_counter()
    images = sum(1 for _path in (root / "test").glob("*/*"))
    return {
        "image_auroc": found["image_AUROC"],
        "pixel_auroc": found["pixel_AUROC"],
        "fit_seconds": fitted - began,
        "image_seconds": (ended - fitted) / images,
    }


def main() -> None:
    """Each set in turn."""
    torch.set_num_threads(2)
    shim()
    # The library is imported before any clock runs.
    import anomalib.engine
    import anomalib.models  # noqa: F401

    way, features, *roots = sys.argv[1:]
    found = {Path(root).name: measure(way, Path(features), Path(root)) for root in roots}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
