"""The steps from noise to a latent picture: the stock pipeline's loop, told of faces, stopped when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from caudal.core.errors import Interrupted
from caudal.core.messages import _
from caudal.inference.generation.identity import Identity
from caudal.models.generation.face_controlnet import conditioned_on

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Steps:
    """Numbers of a denoising: its size in pixels, steps, guidance, seeds (one a picture), strengths.

    `control_strengths` belong to the control pictures, the identity's first. `identity_end` is the share of
    steps after which the face ControlNet rests.
    """

    width: int
    height: int
    steps: int
    guidance: float
    seeds: Sequence[int]
    adapter_strength: float
    control_strengths: Sequence[float]
    identity_end: float = 1.0


def denoise(
    pipeline: Any,
    text: tuple[torch.Tensor, ...],
    faces: Identity,
    controls: Sequence[Any],
    steps: Steps,
    masks_FHW: np.ndarray[Any, Any] | None = None,
    region_HW: np.ndarray[Any, Any] | None = None,
    tick: Tick = lambda _done, _total: None,
    stop: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """Latent pictures (B, 4, height/8, width/8). `controls` are pictures, the keypoints' first.

    `masks_FHW` say where each face is attended to, `region_HW` where the face ControlNet counts. `stop` is
    asked after every step.

    Raises:
        Interrupted: it said yes; nothing of the pictures is held any more.
    """
    guided, count = steps.guidance > 1, len(steps.seeds)
    device, dtype = pipeline._execution_device, text[0].dtype
    tokens, pooled, against, pooled_against = (value.to(device) for value in text)
    stopped = False

    def after_step(pipe: Any, index: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        nonlocal stopped
        tick(index + 1, pipe.num_timesteps)  # some schedulers look twice at a step
        if stop():
            stopped = True
            pipe._interrupt = True
        return values

    attention: dict[str, Any] = {}
    if masks_FHW is not None:
        attention["ip_adapter_masks"] = [torch.from_numpy(masks_FHW)[None].to(device, dtype)]
    pipeline.set_ip_adapter_scale([[float(steps.adapter_strength)] * faces.embeds_BF1E.shape[1]]
                                  if masks_FHW is not None else float(steps.adapter_strength))  # fmt: skip
    many = len(controls) > 1
    strengths = [float(strength) for strength in steps.control_strengths]
    ends = [steps.identity_end, *[1.0] * (len(controls) - 1)]
    region = None if region_HW is None else torch.from_numpy(region_HW).to(device)
    with torch.inference_mode(), conditioned_on(faces.repeated(count, guided), region):
        latents: torch.Tensor = pipeline(
            prompt_embeds=tokens.repeat(count, 1, 1),
            pooled_prompt_embeds=pooled.repeat(count, 1),
            negative_prompt_embeds=against.repeat(count, 1, 1) if guided else None,
            negative_pooled_prompt_embeds=pooled_against.repeat(count, 1) if guided else None,
            image=list(controls) if many else controls[0],
            width=steps.width,
            height=steps.height,
            num_inference_steps=steps.steps,
            guidance_scale=steps.guidance,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in steps.seeds],
            ip_adapter_image_embeds=[faces.embeds_BF1E],
            controlnet_conditioning_scale=strengths if many else strengths[0],
            control_guidance_end=ends if many else ends[0],
            cross_attention_kwargs=attention or None,
            callback_on_step_end=after_step,
            output_type="latent",
            return_dict=False,
        )[0]
    if stopped:
        del latents
        raise halted()
    return latents


def halted() -> Interrupted:
    """The error that ends a picture because somebody asked for it."""
    return Interrupted(
        _("Stopped between two steps, as asked; no picture was written."),
        _("Run it again with the same seed for the same picture."),
    )
