"""Laws of computing activations again: no bit of a step changes, and it holds less."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tests.models.test_backbone import OPTIONS
from torch import nn

from caudal.models.autoencoder import Autoencoder, AutoencoderConfig
from caudal.models.backbone import Backbone, BackboneConfig
from caudal.models.encoder import Encoder, EncoderConfig
from caudal.models.graph_conv import GraphConv, GraphConvConfig
from caudal.models.ragged import Graphs, Sequences
from caudal.models.recompute import again
from caudal.models.recurrent import Recurrent, RecurrentConfig
from caudal.models.residual import ResidualConfig, ResidualNet
from caudal.models.temporal import Temporal, TemporalConfig
from caudal.models.unet import UNet, UNetConfig

Made = tuple[nn.Module, Any]


def images(model: nn.Module) -> Made:
    return model, torch.randn(6, 3, 32, 32)


def sequences(model: nn.Module) -> Made:
    lengths = torch.tensor([70, 1, 33, 0, 64])
    return model, Sequences.from_rows(torch.randn(int(lengths.sum()), 3), lengths.cumsum(0))


def graphs(kind: str, edge_inputs: int) -> Made:
    config = GraphConvConfig.make({"kind": kind, "width": 8, "layers": 3, "edge_inputs": edge_inputs})
    nodes, edges = torch.tensor([9, 1, 30]), torch.tensor([20, 0, 90])
    pairs = torch.cat([torch.randint(0, int(n), (int(e), 2)) for n, e in zip(nodes, edges, strict=True)])
    joined = Graphs.from_rows(
        torch.randn(40, 4), nodes.cumsum(0), pairs, edges.cumsum(0), torch.randn(110, 2)
    )
    return GraphConv(4, 2, config), joined


def backbone(kind: str) -> Made:
    pytest.importorskip("transformers")
    options = OPTIONS[kind] | ({"depths": [2, 2]} if "depths" in OPTIONS[kind] else {})
    return images(Backbone(3, 2, BackboneConfig(kind=kind, options=options)))


MAKE: dict[str, Callable[[], Made]] = {
    "unet": lambda: images(UNet(3, 2, UNetConfig(width=4, depth=2))),
    "autoencoder": lambda: images(Autoencoder(3, 1, AutoencoderConfig(width=4, depth=2))),
    "residual": lambda: images(ResidualNet(3, 2, ResidualConfig(width=4, depth=2))),
    "encoder": lambda: sequences(Encoder(3, 2, EncoderConfig(dim=8, heads=2, layers=3))),
    "temporal": lambda: sequences(Temporal(3, 2, TemporalConfig(width=8, depth=3))),
    "lstm": lambda: sequences(Recurrent(3, 2, RecurrentConfig(width=8, layers=2))),
    "lstm, one way": lambda: sequences(Recurrent(3, 2, RecurrentConfig(width=8, bidirectional=False))),
    **{f"graph {kind}": lambda kind=kind: graphs(kind, 0) for kind in ("gcn", "gin", "gat", "sage")},
    **{f"graph {kind} with edges": lambda kind=kind: graphs(kind, 2) for kind in ("gcn", "gin", "gat")},
    **{kind: lambda kind=kind: backbone(kind) for kind in sorted(OPTIONS)},
}


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", MAKE)
def test_every_level_keeps_every_bit_of_scores_gradients_and_statistics(name: str, half: bool) -> None:
    torch.manual_seed(4)
    model, x = MAKE[name]()
    model.train()

    def two_steps(levels: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]:
        one, scores = copy.deepcopy(model), []
        one.recompute = levels  # type: ignore[assignment]
        for _step in range(2):
            with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                scores.append(one(x))
            scores[-1].float().square().mean().backward()
        gradients = {key: weight.grad for key, weight in one.named_parameters()}
        return scores, gradients | dict(one.named_buffers())

    expected, kept = two_steps(0)
    assert model.recompute_levels
    for levels in range(1, int(model.recompute_levels) + 1):  # type: ignore[arg-type]
        scores, found = two_steps(levels)
        assert all(torch.equal(one, other) for one, other in zip(expected, scores, strict=True))
        for key, value in kept.items():
            other = found[key]
            assert other is value is None or (
                value is not None and other is not None and torch.equal(value, other)
            ), key


@pytest.mark.parametrize("name", MAKE)
def test_outside_training_nothing_is_computed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = MAKE[name]()
    model.eval()
    with torch.no_grad():
        expected = model(x)
        model.recompute = model.recompute_levels
        monkeypatch.setattr("caudal.models.recompute._Again.apply", None)
        assert torch.equal(model(x), expected)


def test_a_network_of_others_is_as_it_was_after_a_step_and_after_a_step_that_failed() -> None:
    model, x = backbone("vit")
    model.train()
    model.recompute = 1  # type: ignore[assignment]
    model(x).sum().backward()
    with pytest.raises((RuntimeError, ValueError)):
        model(x[:, :1])
    assert not [module for module in model.modules() if "forward" in vars(module)]


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    layer = nn.Linear(3, 3)
    layer.bias.requires_grad_(False)
    x = torch.randn(2, 3)
    again(layer, x).sum().backward()
    assert layer.weight.grad is not None
    assert (layer.bias.grad, x.grad) == (None, None)


_CHILD = """
import json, torch
from caudal.memory.meters import PeakMeter
from caudal.memory import allocator
from caudal.runs.machine import settle
settle()
torch.set_num_threads(1)
from caudal.models.backbone import Backbone, BackboneConfig
from caudal.models.encoder import Encoder, EncoderConfig
from caudal.models.graph_conv import GraphConv, GraphConvConfig
from caudal.models.ragged import Graphs, Sequences
from caudal.models.recurrent import Recurrent, RecurrentConfig
from caudal.models.temporal import Temporal, TemporalConfig
from caudal.runs.assemble import make_thrifty
steps, many = (Sequences.of_one_length(torch.randn(*shape, 4)) for shape in ((8, 512), (32, 1024)))
pixels, large = torch.randn(8, 3, 64, 64), torch.randn(8, 3, 256, 256)
nodes, edges = torch.tensor([8000]), torch.tensor([40000])
graph = Graphs.from_rows(torch.randn(8000, 4), nodes, torch.randint(0, 8000, (40000, 2)), edges)
vit = dict(hidden_size=64, num_hidden_layers=8, num_attention_heads=2, intermediate_size=128, image_size=64,
           patch_size=4)
stages = dict(hidden_sizes=[32, 64], depths=[3, 3], num_stages=2)
found = {}
for name, make, x in (
    ("encoder", lambda: Encoder(4, 2, EncoderConfig(layers=6)), steps),
    ("temporal", lambda: Temporal(4, 2, TemporalConfig(width=64)), steps),
    ("lstm", lambda: Recurrent(4, 2, RecurrentConfig(width=64)), many),
    ("graph", lambda: GraphConv(4, 2, GraphConvConfig(kind="gin", layers=6)), graph),
    ("vit", lambda: Backbone(3, 2, BackboneConfig(kind="vit", options=vit)), pixels),
    ("convnext", lambda: Backbone(3, 2, BackboneConfig(kind="convnext", options=stages)), large),
):
    model = make().train()
    peaks = []
    for levels in (0, 0, model.recompute_levels):  # at first with kernels that are made once
        make_thrifty(model, 1, levels)
        model.zero_grad()
        allocator.trim()
        meter = PeakMeter()
        before = meter.peak()
        model(x).square().mean().backward()
        peaks.append(meter.peak() - before)
    found[name] = peaks[1:]
print(json.dumps(found))
"""


@pytest.mark.slow  # `test_levers_on_a_step_really_lower_its_peak` holds it of a U-Net
def test_computing_again_really_lowers_the_peak_of_a_step() -> None:
    pytest.importorskip("transformers")
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    for name, (kept, redone) in json.loads(done.stdout.splitlines()[-1]).items():
        assert redone < 0.9 * kept, (name, kept, redone)  # small blocks scatter by a tenth
