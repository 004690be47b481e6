"""The memory of normal patches keeps its bytes however many images it learns from, in a real group."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open

from benchmarks.children import MIB, caudal, mib
from benchmarks.rows import Row

COUNTS = tuple(int(n) for n in os.environ.get("CAUDAL_BANK_COUNTS", "100,1000,10000,100000").split(","))
LIMIT, BANK, SIDE = 512 * MIB, 2**18, 64


def row() -> Row:
    """One folder that grows; a training from the beginning at each size."""
    figures, good, growth = [], True, list[int]()
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name), 0
        for count in COUNTS:
            fill(folder / "good", made, count)
            made = count
            spec = folder / f"{count}.toml"
            spec.write_text(
                f'task = "anomaly"\n[data]\nimages = ["{folder / "good"}"]\n'
                f'[model]\nname = "patch_memory"\nconfig = {{bank_bytes = {BANK}}}\n'
            )
            result, ended = caudal(LIMIT, "train", spec, "-o", folder / f"run {count}", "--ram", "512MiB")
            with safe_open(folder / f"run {count}" / "model" / "model.safetensors", "np") as file:
                bank = file.get_tensor("bank")
            good &= bank.nbytes <= BANK and ended.oom_kills == 0 and ended.peak_charged <= LIMIT
            growth.append(ended.peak_charged)
            figures.append(
                (f"{count:,} images of {SIDE}²",
                 f"{len(bank)} patches, {bank.nbytes / 1024:.0f} KiB; {mib(ended.peak_charged)} charged, "
                 f"{ended.oom_kills} kills; {result['seconds']:.0f} s")
            )  # fmt: skip
            print(*figures[-1], sep=": ", flush=True)
    figures.append(("charged, the most ÷ the least", f"{max(growth) / min(growth):.2f}"))
    return Row(
        f"patch_memory learned from made pictures, a bank of {BANK >> 10} KiB at the most, through the "
        "command line in a real group of 512 MiB",
        "the bank and the group within their bytes at every count, no kill",
        good,
        figures,
    )


def fill(folder: Path, first: int, stop: int) -> None:
    """Pictures of one of many woven textures each, numbered `first` … `stop` - 1."""
    import cv2

    folder.mkdir(exist_ok=True)
    rows, cols = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    for number in range(first, stop):
        draw = np.random.default_rng(number)
        a, b, c, d = draw.uniform(0.05, 0.9, 4)
        weave = np.sin(a * rows + b * cols) + np.cos(c * rows - d * cols)
        x_HWC = 120 + 30 * weave[..., None] * draw.uniform(0.5, 1, 3) + draw.normal(0, 6, (SIDE, SIDE, 3))
        assert cv2.imwrite(str(folder / f"{number:06d}.jpg"), x_HWC.clip(0, 255).astype(np.uint8))
