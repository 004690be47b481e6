"""The published method written again from its description, for tests to compare with: no code of ours, and
of diffusers only the networks' layers that the method did not change.

Resampler: a perceiver, four layers. Attention: the text's and, with a strength, the faces'. ControlNet: sees
the faces' tokens alone. Guidance: the row without a prompt has tokens of a face of zeros. Sampling: Euler.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

State = dict[str, torch.Tensor]


def resampler(state: State, faces_BE: torch.Tensor) -> torch.Tensor:
    """Tokens (B, 16, C) of faces (B, E)."""
    width = state["latents"].shape[-1]
    heads = state["layers.0.0.to_q.weight"].shape[0] // 64
    x = F.linear(faces_BE[:, None], state["proj_in.weight"], state["proj_in.bias"])
    latents = state["latents"].expand(len(x), -1, -1)
    for i in range(4):
        layer = {k.removeprefix(f"layers.{i}."): v for k, v in state.items() if k.startswith(f"layers.{i}.")}

        def norm(value: torch.Tensor, name: str, layer: State = layer) -> torch.Tensor:
            return F.layer_norm(value, (width,), layer[f"{name}.weight"], layer[f"{name}.bias"])

        seen, queries = norm(x, "0.norm1"), norm(latents, "0.norm2")
        q = queries @ layer["0.to_q.weight"].T
        k, v = (torch.cat([seen, queries], 1) @ layer["0.to_kv.weight"].T).chunk(2, -1)
        latents = latents + plain_attention(q, k, v, heads) @ layer["0.to_out.weight"].T
        hidden = F.gelu(norm(latents, "1.0") @ layer["1.1.weight"].T)
        latents = latents + hidden @ layer["1.3.weight"].T
    out = F.linear(latents, state["proj_out.weight"], state["proj_out.bias"])
    return F.layer_norm(out, out.shape[-1:], state["norm_out.weight"], state["norm_out.bias"])


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(q·k/√d)·v with explicit matrices."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class FaceAttention:
    """Cross-attention over text and faces; `tokens` are (B, faces, T, C), `masks` (faces, H, W) or None."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor, shared: dict) -> None:
        self.key, self.value, self.shared = key, value, shared

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_ignored):  # type: ignore[no-untyped-def]
        x, text = hidden_states, encoder_hidden_states
        q = attn.to_q(x)
        out = plain_attention(q, attn.to_k(text), attn.to_v(text), attn.heads)
        tokens, masks = self.shared["tokens"], self.shared["masks"]
        if masks is None:
            joined = tokens.flatten(1, 2)
            more = plain_attention(q, joined @ self.key.T, joined @ self.value.T, attn.heads)
            out = out + self.shared["strength"] * more
        else:
            ratio = masks.shape[2] / masks.shape[1]
            high = int(math.sqrt(x.shape[1] / ratio))
            for i, mask in enumerate(masks):
                small = F.interpolate(
                    mask[None, None], size=(high, x.shape[1] // high), mode="bicubic"
                ).flatten()
                one = tokens[:, i]
                more = plain_attention(q, one @ self.key.T, one @ self.value.T, attn.heads)
                out = out + self.shared["strength"] * more * small[None, :, None]
        return attn.to_out[0](out)


def as_rows(picture: np.ndarray, rows: int) -> torch.Tensor:
    """A picture as a ControlNet takes it, (rows, 3, H, W) of 0 to 1."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float().div(255).expand(rows, -1, -1, -1)


def kept_to(residual: torch.Tensor, region_HW: np.ndarray | None) -> torch.Tensor:
    """A residual times the mask of the faces' boxes, brought to its size."""
    if region_HW is None:
        return residual
    region = torch.from_numpy(region_HW)[None, None]
    return residual * F.interpolate(region, size=residual.shape[-2:], mode="bilinear")


class Oracle:
    """Loads a model folder by its own means."""

    def __init__(self, folder: Path) -> None:
        from diffusers import ControlNetModel, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        flat = load_file(folder / "adapter.safetensors")
        self.projection = {k.removeprefix("image_proj."): v for k, v in flat.items() if k.startswith("image")}
        attention = {k.removeprefix("ip_adapter."): v for k, v in flat.items() if k.startswith("ip_adapter.")}
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        self.net = ControlNetModel.from_pretrained(folder / "identity")
        self.shared: dict = {}
        stock = self.unet.attn_processors
        self.unet.set_attn_processor(
            {
                name: FaceAttention(
                    attention[f"{i}.to_k_ip.weight"], attention[f"{i}.to_v_ip.weight"], self.shared
                )
                if name.endswith("attn2.processor")
                else processor
                for i, (name, processor) in enumerate(stock.items())
            }
        )
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.encoders = [
            CLIPTextModel.from_pretrained(folder / "text_encoder"),
            CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
        ]

    def text(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
        outs = [encoder(ids, output_hidden_states=True) for encoder in self.encoders]
        return torch.cat([out.hidden_states[-2] for out in outs], -1), outs[1].text_embeds

    @torch.no_grad()
    def latents(
        self,
        prompt: str,
        faces_FE: np.ndarray,
        keypoints: np.ndarray,
        *,
        steps: int,
        guidance: float,
        seed: int,
        identity: float,
        adapter: float,
        masks_FHW: np.ndarray | None = None,
        region_HW: np.ndarray | None = None,
        negative: str = "",
        identity_end: float = 1.0,
        further: tuple[torch.nn.Module, np.ndarray, float] | None = None,
    ) -> torch.Tensor:
        """A latent picture for one seed; `further` is a ControlNet of the prompt, its picture, strength."""
        height, width = keypoints.shape[:2]
        tokens = resampler(self.projection, torch.from_numpy(faces_FE))[None]  # (1, F, T, C)
        text, pooled = self.text(prompt)
        if guidance > 1:
            nobody = resampler(self.projection, torch.zeros_like(torch.from_numpy(faces_FE)))[None]
            tokens = torch.cat([nobody, tokens])
            against = self.text(negative) if negative else [torch.zeros_like(t) for t in (text, pooled)]
            text, pooled = (torch.cat(pair) for pair in zip(against, (text, pooled), strict=True))
        masks = None if masks_FHW is None else torch.from_numpy(masks_FHW)
        self.shared.update(tokens=tokens, strength=adapter, masks=masks)
        rows = len(tokens)
        shown = as_rows(keypoints, rows)
        added = {
            "text_embeds": pooled,
            "time_ids": torch.tensor([[height, width, 0, 0, height, width]]).float().expand(rows, -1),
        }
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        left = (1 - betas).cumprod(0)
        every = (((1 - left) / left) ** 0.5).numpy()
        times = np.linspace(0, 999, steps, dtype=np.float32)[::-1].copy()
        sigmas = np.append(np.interp(times, np.arange(1000), every), 0).astype(np.float32)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((1, 4, height // 2, width // 2), generator=generator) * float(sigmas.max())
        for done, (time, sigma, following) in enumerate(zip(times, sigmas, sigmas[1:], strict=False), 1):
            given = (x / (sigma**2 + 1) ** 0.5).expand(rows, -1, -1, -1)
            down, mid = self.net(
                given, float(time), encoder_hidden_states=tokens.flatten(1, 2), controlnet_cond=shown,
                added_cond_kwargs=added, return_dict=False,
            )  # fmt: skip
            counts = 0.0 if done / steps > identity_end else identity
            residuals = [kept_to(residual * counts, region_HW) for residual in (*down, mid)]
            if further is not None:
                net, picture, strength = further
                more, more_mid = net(
                    given, float(time), encoder_hidden_states=text, controlnet_cond=as_rows(picture, rows),
                    added_cond_kwargs=added, return_dict=False,
                )  # fmt: skip
                residuals = [
                    one + other * strength for one, other in zip(residuals, (*more, more_mid), strict=True)
                ]
            noise = self.unet(
                given, float(time), encoder_hidden_states=text, added_cond_kwargs=added,
                down_block_additional_residuals=residuals[:-1],
                mid_block_additional_residual=residuals[-1], return_dict=False,
            )[0]  # fmt: skip
            if guidance > 1:
                against, wanted = noise.chunk(2)
                noise = against + guidance * (wanted - against)
            x = x + (following - sigma) * noise
        return x
