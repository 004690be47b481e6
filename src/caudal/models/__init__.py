"""Networks: pure torch modules, and the folder that a trained one is kept in. No file is read but weights."""

from __future__ import annotations

from caudal.core.registry import Registry

MODELS = Registry("model", "caudal.models", {"unet": "caudal.models.unet:UNet"})
