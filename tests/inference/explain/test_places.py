"""Integrated gradients of steps and nodes add up to the score, agree with captum, find what was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from caudal.inference.explain.places import explain_places
from caudal.models import weights
from caudal.models.ragged import Graphs, Sequences


def made(name: str, inputs: int, **config: Any) -> nn.Module:
    torch.manual_seed(0)
    return weights.build(name, inputs, 3, config).eval()


def sequence(steps: int = 20) -> Sequences:
    x = torch.randn(1, steps, 2, generator=torch.Generator().manual_seed(1))
    return Sequences(x, torch.tensor([steps]))


def second(scores: torch.Tensor) -> torch.Tensor:
    return scores[:, 1]


@pytest.mark.parametrize("name", ["recurrent", "temporal", "encoder"])
def test_steps_make_up_the_difference_and_agree_with_captum(name: str) -> None:
    captum = pytest.importorskip("captum.attr")
    model, sample = made(name, 2), sequence()
    found = explain_places(model, sample, second)
    assert found.steps_or_nodes.shape == (20,)
    assert found.missed < 0.02
    assert found.score == pytest.approx(float(model(sample).detach()[0, 1]))

    def forward(x_BTF: torch.Tensor) -> torch.Tensor:
        return model(Sequences(x_BTF, torch.full((len(x_BTF),), 20)))

    theirs = captum.IntegratedGradients(forward).attribute(
        sample.x_BTF, target=1, n_steps=2000, internal_batch_size=200, method="riemann_middle"
    )
    np.testing.assert_allclose(found.steps_or_nodes, theirs[0].sum(-1).detach().numpy(), atol=5e-3)


@pytest.mark.parametrize("kind", ["gin", "gcn", "gat", "sage"])
def test_nodes_and_edges_make_up_the_difference(kind: str) -> None:
    pytest.importorskip("torch_geometric")
    model = made("graph_conv", 3, kind=kind, edge_inputs=2, layers=2)
    draw = torch.Generator().manual_seed(2)
    graph = Graphs(
        torch.randn(6, 3, generator=draw),
        torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]),
        torch.zeros(6, dtype=torch.int64),
        1,
        torch.randn(5, 2, generator=draw),
    )
    found = explain_places(model, graph, second)
    assert found.steps_or_nodes.shape == (6,)
    assert found.edges.shape == (5,)
    assert found.missed < 0.02


def test_what_a_model_does_not_look_at_gave_nothing_and_what_it_looks_at_falls_most() -> None:
    class Third(nn.Module):
        def forward(self, sequences: Sequences) -> torch.Tensor:
            return sequences.x_BTF[:, 3] * 5

    found = explain_places(Third().eval(), sequence(), lambda scores: scores[:, 0])
    assert np.flatnonzero(found.steps_or_nodes).tolist() == [3]
    assert found.score - found.empty == pytest.approx(found.steps_or_nodes.sum(), rel=1e-3)
    if found.score > 0:
        assert found.fall > found.fall_by_chance


def test_missing_values_gave_nothing_and_break_nothing() -> None:
    sample = sequence()
    sample.x_BTF[0, 5] = torch.nan
    found = explain_places(made("recurrent", 2), sample, second)
    assert found.steps_or_nodes[5] == 0
    assert np.isfinite(found.steps_or_nodes).all()
    assert found.missed < 0.02
