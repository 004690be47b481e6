"""The stock pipeline, told where it computes: its networks may be elsewhere, or nowhere, when it is asked."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionXLControlNetPipeline


class FacePipeline(StableDiffusionXLControlNetPipeline):
    """diffusers' own, with nothing of its work changed."""

    where = torch.device("cpu")

    @property
    def _execution_device(self) -> torch.device:
        return self.where
