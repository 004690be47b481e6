"""Weights that come to a device module by module: same results, never more there than one module holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from caudal.models.brought import brought
from caudal.models.unet import UNet, UNetConfig


def model() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 2, UNetConfig(width=4, depth=2)).eval()


def test_results_are_those_of_weights_that_are_there() -> None:
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(brought(model(), "cpu")(x), model()(x))


def test_only_the_module_that_computes_has_its_weights_on_the_device() -> None:
    # The meta device stands for one with other memory: what is on it takes part in no other computation.
    net = brought(model(), "meta")
    seen: list[set[str]] = []

    def look(_module: nn.Module, _inputs: object) -> None:
        there = {name.rsplit(".", 1)[0] for name, w in net.named_parameters() if w.device.type == "meta"}
        seen.append(there)

    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(look)  # called after the weights have come
    y = net(torch.empty(1, 3, 32, 32, device="meta"))
    assert y.device.type == "meta"
    assert len(seen) > 5
    assert all(len(there) == 1 for there in seen)
    assert all(w.device.type == "cpu" for w in net.state_dict().values())


def test_weights_go_back_where_a_pass_fails() -> None:
    net = brought(model(), "meta")
    with pytest.raises(RuntimeError):
        net(torch.empty(1, 5, 32, 32, device="meta"))  # too many bands
    assert all(w.device.type == "cpu" for w in net.state_dict().values())
