"""From latent pictures to pixels: whole, one picture at a time, or in tiles that are blended."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from caudal.tasks.generation.faces import Picture

Way = Literal["whole", "sliced", "tiled"]
OVERLAP = 0.25


def set_way(vae: Any, way: Way, tile_px: int = 512) -> None:
    """Have the decoder work in this way. Tiles are `tile_px` wide: the stock default is the model's whole
    size, at which nothing is cut."""
    (vae.enable_slicing if way != "whole" else vae.disable_slicing)()
    (vae.enable_tiling if way == "tiled" else vae.disable_tiling)()
    if way == "tiled":
        shrunk = 2 ** (len(vae.config.block_out_channels) - 1)
        vae.tile_sample_min_size = tile_px
        vae.tile_latent_min_size = tile_px // shrunk
        vae.tile_overlap_factor = OVERLAP


def decode(vae: Any, latents_BCHW: torch.Tensor, device: torch.device, dtype: torch.dtype) -> list[Picture]:
    """Pixels of latent pictures, (height, width, 3), uint8, RGB; computed on `device` in `dtype`.

    The decoder's weights may be elsewhere until it is called.
    """
    config = vae.config
    latents_BCHW = latents_BCHW.to(device, dtype)
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    with torch.inference_mode():
        if mean is not None and deviation is not None:
            shape = (1, -1, 1, 1)
            scale = torch.tensor(deviation).view(shape).to(latents_BCHW) / config.scaling_factor
            latents_BCHW = latents_BCHW * scale + torch.tensor(mean).view(shape).to(latents_BCHW)
        else:
            latents_BCHW = latents_BCHW / config.scaling_factor
        x_BCHW = vae.decode(latents_BCHW, return_dict=False)[0]
        x_BCHW = x_BCHW.float().mul_(0.5).add_(0.5).clamp_(0, 1).mul_(255).round_()
        x_BHWC = x_BCHW.permute(0, 2, 3, 1).to("cpu", torch.uint8).contiguous()
    return [np.asarray(x_HWC.numpy(), np.uint8) for x_HWC in x_BHWC]
