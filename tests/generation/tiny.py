"""A whole pipeline of a few million random numbers, in the folders that diffusers writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

UNET = {
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "projection_class_embeddings_input_dim": 80,
    "cross_attention_dim": 64,
}
CONTROLNET = {
    **{k: v for k, v in UNET.items() if k not in ("sample_size", "out_channels", "up_block_types")},
    "conditioning_embedding_out_channels": (16, 32),
}
VAE = {
    "block_out_channels": (32, 64),
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "sample_size": 64,
}
TEXT = {
    "bos_token_id": 512,
    "eos_token_id": 513,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "pad_token_id": 513,
    "vocab_size": 514,
    "hidden_act": "gelu",
    "projection_dim": 32,
}
WIDTH, TOKENS, EMBEDDING = 128, 16, 512


def _bytes_to_letters() -> list[str]:
    """The printable letters that stand for the 256 bytes in CLIP's vocabulary."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def write_tokenizer(folder: Path) -> None:
    from transformers import CLIPTokenizer

    letters = _bytes_to_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    ).save_pretrained(folder)


def adapter_state(
    unet: torch.nn.Module, seed: int = 7, width: int = WIDTH
) -> dict[str, dict[str, torch.Tensor]]:
    """An adapter in the published layout, for this UNet."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.1)

    out = unet.config.cross_attention_dim
    projection = {
        "latents": some(1, TOKENS, width),
        "proj_in.weight": some(width, EMBEDDING),
        "proj_in.bias": some(width),
        "proj_out.weight": some(out, width),
        "proj_out.bias": some(out),
        "norm_out.weight": 1 + some(out),
        "norm_out.bias": some(out),
    }
    for i in range(4):
        layer = {f"0.norm{n}.weight": 1 + some(width) for n in (1, 2)}
        layer |= {f"0.norm{n}.bias": some(width) for n in (1, 2)}
        layer |= {
            "0.to_q.weight": some(width, width),
            "0.to_kv.weight": some(2 * width, width),
            "0.to_out.weight": some(width, width),
            "1.0.weight": 1 + some(width),
            "1.0.bias": some(width),
            "1.1.weight": some(4 * width, width),
            "1.3.weight": some(width, 4 * width),
        }
        projection |= {f"layers.{i}.{name}": value for name, value in layer.items()}
    attention = {}
    for i, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            attention |= {f"{i}.to_{kind}_ip.weight": some(hidden, out) for kind in "kv"}
    return {"image_proj": projection, "ip_adapter": attention}


def controlnet(seed: int) -> torch.nn.Module:
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    net = ControlNetModel(**CONTROLNET)
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.1)  # born as zeros, which would prove nothing
    torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.1)
    return net


def write_model(folder: Path, pickle_adapter: bool = False) -> Path:
    """The model folder; returns it."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    unet.save_pretrained(folder / "unet")
    torch.manual_seed(1)
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    for i, (name, kind) in enumerate(
        {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}.items()
    ):
        torch.manual_seed(2 + i)
        kind(CLIPTextConfig(**TEXT)).save_pretrained(folder / name)
    for name in ("tokenizer", "tokenizer_2"):
        write_tokenizer(folder / name)
    EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    controlnet(5).save_pretrained(folder / "identity")
    state = adapter_state(unet)
    if pickle_adapter:
        torch.save(state, folder / "ip-adapter.bin")
    else:
        flat = {f"{kind}.{name}": v.contiguous() for kind, part in state.items() for name, v in part.items()}
        save_file(flat, folder / "adapter.safetensors")
    return folder


def portrait(width: int = 96, height: int = 96, faces: int = 1, colour: int = 0) -> np.ndarray:
    """A picture in which the stand-in engine finds so many faces."""
    import cv2

    from caudal.models.generation.faces.stand_in import SKIN

    x_HWC = np.full((height, width, 3), (30, 60 + colour, 90), np.uint8)
    step = width / faces
    for i in range(faces):
        centre = (int(step * (i + 0.5)), height // 2)
        radius = int(min(step, height) * (0.34 - 0.06 * i))
        cv2.ellipse(x_HWC, centre, (int(radius * 0.8), radius), 0, 0, 360, SKIN, -1)
        for dx in (-0.3, 0.3):  # eyes, small enough to leave the patch in one piece
            cv2.circle(
                x_HWC,
                (int(centre[0] + dx * radius), int(centre[1] - radius * 0.2)),
                2,
                (20 + colour, 20, 90),
                -1,
            )
    return x_HWC


def save_picture(path: Path, x_HWC: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(x_HWC).save(path)
    return path
