"""Two stages of learning for models that begin with weights learned elsewhere: the head, then all of it.

A new head's first gradients are noise, which would spoil what the rest already knows (the recipe of the
melanoma seed; Kumar et al., "Fine-tuning can distort pretrained features", ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class HasHead(Protocol):
    """A model that says which of its weights are the head's."""

    def body_parameters(self) -> Iterable[nn.Parameter]:
        """All others."""
        ...


class Stages:
    """Lets the body of `model` rest in the first `head_steps` steps; nothing for a model without a head."""

    def __init__(self, model: nn.Module, head_steps: int) -> None:
        self._body = list(model.body_parameters()) if isinstance(model, HasHead) and head_steps else []
        self._head_steps = head_steps
        self._rests: bool | None = None

    def begin(self, step: int) -> None:
        """Be ready for step `step`, counted from 0."""
        rests = step < self._head_steps
        if rests == self._rests:
            return
        self._rests = rests
        for weight in self._body:
            weight.requires_grad_(not rests)
