"""Networks from configurations, on the meta device: exact shapes and types, no bytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from caudal.core.errors import BadModel, CaudalError
from caudal.core.messages import _
from caudal.models.generation.adapter import AdapterSizes, install
from caudal.models.generation.libraries import need


def build(part: str, config: dict[str, Any], adapter: AdapterSizes | None = None) -> Any:
    """One part from its configuration; parameters are on the meta device, computed buffers are real.

    `adapter` is installed into a UNet. A part that is none of `PARTS` is a ControlNet of its own.

    Raises:
        BadModel: the configuration is of another network.
        UsageError: a package is not installed.
    """
    try:
        with torch.device("meta"):
            module = _MAKERS.get(part, _controlnet)(config)
        _real_buffers(module)
        if part == "unet" and adapter is not None:
            install(module, adapter)
    except CaudalError:
        raise
    except Exception as error:  # a library that reads what strangers wrote has no tree of errors
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadModel(
            _("The configuration of {part} cannot be used: {why}.").format(part=part, why=why.rstrip(".")),
            _("Give folders as diffusers writes them, of a model of the SDXL kind."),
        ) from None
    return module.eval().requires_grad_(False)


def _real_buffers(module: nn.Module) -> None:
    """What no file holds is computed: the positions 0, 1, 2 … of a text encoder are all that there is."""
    for one in module.modules():
        for name in one._non_persistent_buffers_set:
            assert name == "position_ids", name
            # A buffer may be None; those that are named here never are.
            count = one._buffers[name].shape[-1]  # type: ignore[union-attr]
            one._buffers[name] = torch.arange(count)[None]


def _text_encoder(config: dict[str, Any]) -> Any:
    library = need("transformers")
    return library.CLIPTextModel(library.CLIPTextConfig(**_plain(config)))


def _text_encoder_2(config: dict[str, Any]) -> Any:
    library = need("transformers")
    return library.CLIPTextModelWithProjection(library.CLIPTextConfig(**_plain(config)))


def _unet(config: dict[str, Any]) -> Any:
    return need("diffusers").UNet2DConditionModel.from_config(_plain(config))


def _identity(config: dict[str, Any]) -> Any:
    need("diffusers")
    network: Any = import_module("caudal.models.generation.face_controlnet")
    return network.FaceControlNet.from_config(_plain(config))


def _controlnet(config: dict[str, Any]) -> Any:
    return need("diffusers").ControlNetModel.from_config(_plain(config))


def _vae(config: dict[str, Any]) -> Any:
    return need("diffusers").AutoencoderKL.from_config(_plain(config))


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Without what names code, types and versions."""
    dropped = ("auto_map", "architectures", "torch_dtype", "dtype", "quantization_config", "model_type")
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in dropped}


_MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "text_encoder": _text_encoder,
    "text_encoder_2": _text_encoder_2,
    "unet": _unet,
    "identity": _identity,
    "vae": _vae,
}
