"""Synthetic weights of true layout at a chosen scale, and what a child under a real limit does with them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

WIDE = {
    "block_out_channels": (128, 256),
    "attention_head_dim": (4, 8),
    "transformer_layers_per_block": (1, 6),
    "cross_attention_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}


def write_wide(folder: Path, scale: int = 1, dtype: torch.dtype = torch.float32) -> Path:
    """A model whose UNet and ControlNet are `scale` times as wide as the smallest such."""
    from tests.generation import tiny

    sides = {
        key: tuple(side * scale for side in value) if key == "block_out_channels" else value
        for key, value in WIDE.items()
    }
    saved = dict(tiny.UNET), dict(tiny.CONTROLNET), dict(tiny.TEXT)
    try:
        tiny.TEXT["hidden_size"], tiny.TEXT["intermediate_size"] = 128, 256
        tiny.UNET.update(sides)
        tiny.CONTROLNET.update(sides)
        tiny.write_model(folder)
    finally:
        for now, before in zip((tiny.UNET, tiny.CONTROLNET, tiny.TEXT), saved, strict=True):
            now.clear()
            now.update(before)
    return folder


def weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def child(what: str, folder: str, *more: str) -> None:
    """Load, or generate from disk, and print what it took as one line of JSON."""
    from caudal.runs.machine import settle

    settle()
    from caudal.memory import allocator
    from caudal.memory.meters import PeakMeter, charged_bytes
    from caudal.models.generation.part import PRECISIONS, open_part
    from caudal.runs.generation.studio import open_model

    opened = open_model(folder)
    if what == "load":
        told = []
        for precision in more:
            parts = [open_part(name, opened) for name in opened.parts()]
            allocator.trim()
            before = charged_bytes()
            meter = PeakMeter()
            for part in parts:
                part.load("cpu", PRECISIONS[precision])
            peak = meter.peak() - before
            target = sum(t.numel() * t.element_size() for part in parts for t in part.tensors().values())
            told.append({"precision": precision, "peak": peak, "target": target})
            for part in parts:
                part.empty()
        print(json.dumps(told))
        return
    if what == "generate":
        from caudal.runs.verbs.generate import generate
        from caudal.tasks.generation.request import GenerationRequest

        ram, face, out, side, steps, exact = more
        asked = GenerationRequest(prompt="a man", width=int(side), height=int(side), steps=int(steps), seed=1)
        done = generate(
            asked, model=folder, people=face, out=out, ram=int(ram), device="cpu", exact=exact == "exact",
            engine="stand_in",
        )  # fmt: skip
        print(done.model_dump_json())
        return
    raise SystemExit(f"unknown: {what}")


if __name__ == "__main__":
    child(*sys.argv[1:])
