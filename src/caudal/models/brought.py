"""Weights that stay in the host's memory and come to the device module by module, while each computes.

For inference with less room on the device than the weights take. What is on the device at a time is one
module's own weights, beside the activations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def brought(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Let every module with weights of its own bring them to `device` for its forward pass, and drop them.

    The model itself is changed and given back. Its weights must not be learned: what is brought is a copy.
    """
    for module in model.modules():
        if any(True for _tensor in _own(module)):
            stay = _Stay(torch.device(device))
            module.register_forward_pre_hook(stay.bring)
            module.register_forward_hook(stay.drop, always_call=True)
    return model


class _Stay:
    """One module's weights: where they are kept while it computes with copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: list[tuple[dict[str, Any], str, torch.Tensor]] = []

    def bring(self, module: nn.Module, _inputs: Any) -> None:
        self._kept = list(_own(module))
        for table, name, tensor in self._kept:
            here = tensor.detach().to(self._device, non_blocking=True)
            table[name] = nn.Parameter(here, requires_grad=False) if table is module._parameters else here

    def drop(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        for table, name, tensor in self._kept:
            table[name] = tensor
        self._kept = []


def _own(module: nn.Module) -> Any:
    """Its own tensors, not those of its parts: the table that holds each, its name, and itself."""
    for table in (module._parameters, module._buffers):
        for name, tensor in list(table.items()):
            if tensor is not None:
                yield table, name, tensor
