"""Recurrent networks over sequences of any length: LSTM (Hochreiter and Schmidhuber, Neural Computation
1997) and GRU (Cho et al., EMNLP 2014).

No dropout: its masks would depend on how a batch is cut into micro-batches.
Legend: B samples, T steps, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from caudal.core.config import Frozen
from caudal.models.pooling import Pooling, StepPool
from caudal.models.ragged import Sequences, filled
from caudal.models.recompute import again

_AT_ONCE = 32  # steps
_NARROW = (
    128  # cells; measured: a second thread brings a third on idle cores, and costs 20 times on busy ones
)


class RecurrentConfig(Frozen):
    """`layers` of `width` cells, read in both directions if `bidirectional`.

    With `per_step` there is an output for every step, else one for the sequence, from its steps by
    `pooling`; `last` of two directions is the end of each. `indicator` adds a feature for each that says
    where it was missing.
    """

    kind: Literal["lstm", "gru"] = "lstm"
    width: int = Field(64, ge=1, le=4096)
    layers: int = Field(1, ge=1, le=16)
    bidirectional: bool = True
    pooling: Pooling = "attention"
    per_step: bool = False
    indicator: bool = False


class Recurrent(nn.Module):
    """Scores of `outputs` numbers for each sequence of `inputs` features, or for each of its steps."""

    Config: ClassVar[type[RecurrentConfig]] = RecurrentConfig
    step_by_step: ClassVar[bool] = True
    """In bfloat16 a CPU takes its steps one by one, which is slower than float32."""

    def __init__(self, inputs: int, outputs: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.config, self.inputs, self.outputs = config, inputs, outputs
        self.recompute = 0
        kind = nn.LSTM if config.kind == "lstm" else nn.GRU
        self.cells = kind(
            inputs * (2 if config.indicator else 1),
            config.width,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        wide = config.width * (2 if config.bidirectional else 1)
        self.pool = None if config.per_step else StepPool(config.pooling, wide)
        self.head = nn.Linear(wide if self.pool is None else self.pool.outputs, outputs)

    @property
    def recompute_levels(self) -> int:
        """1 for an LSTM: `_AT_ONCE` steps at a time compute their activations again where they are taken so.

        0 for a GRU: it is one call for all steps and layers, which done again would hold as much as before.
        """
        return 1 if self.config.kind == "lstm" else 0

    @property
    def threads_worth(self) -> int | None:
        """How many threads are worth it on a CPU: after each step of a sequence all wait for each other.

        Of a narrow network a step is less work than the wait, the more so where others use the processors.
        """
        return 1 if self.config.width <= _NARROW else None

    def forward(self, sequences: Sequences) -> torch.Tensor:
        """Scores (B, outputs); (B, T, outputs) with `per_step`: those after a sequence's end mean nothing."""
        x_BTF = filled(sequences.x_BTF, self.config.indicator)
        lengths_B = sequences.lengths_B.clamp(min=1)
        on_cpu = x_BTF.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        fused = on_cpu and isinstance(self.cells, nn.LSTM)
        h_BTC = (self._fused if fused else self._packed)(x_BTF, lengths_B)
        if self.pool is None:
            pooled = h_BTC
        elif self.config.pooling == "last":
            pooled = self._ends(h_BTC, lengths_B)
        else:
            pooled = self.pool(h_BTC, sequences.known())
        scores: torch.Tensor = self.head(pooled)
        return scores

    def _packed(self, x_BTF: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """States (B, T, C). Packed, so that the way back begins at each sequence's own end."""
        packed = pack_padded_sequence(x_BTF, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        states, _ends = self.cells(packed)
        h_BTC, _lengths = pad_packed_sequence(states, batch_first=True, total_length=x_BTF.shape[1])
        return h_BTC

    def _fused(self, x_BTF: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """The same up to each sequence's end, without packing: on a CPU one kernel takes many steps.

        Packed steps go one by one there, which takes several times as long.
        """
        order_B = torch.argsort(lengths_B, descending=True, stable=True)
        lengths_B, x_BTF = lengths_B[order_B], x_BTF.index_select(0, order_B)
        turn_BT = _turned(lengths_B, x_BTF.shape[1])
        weights = self.cells.all_weights
        thrifty = bool(self.training and self.recompute and torch.is_grad_enabled())
        for layer in range(self.config.layers):
            if self.config.bidirectional:
                ahead = _one_way(x_BTF, lengths_B, weights[2 * layer], thrifty)
                back = _one_way(_rows(x_BTF, turn_BT), lengths_B, weights[2 * layer + 1], thrifty)
                x_BTF = torch.cat([ahead, _rows(back, turn_BT)], 2)
            else:
                x_BTF = _one_way(x_BTF, lengths_B, weights[layer], thrifty)
        return x_BTF.index_select(0, torch.argsort(order_B))

    def _ends(self, h_BTC: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Where each direction ends: the last step, and on the way back the first."""
        last_BC = h_BTC[torch.arange(len(h_BTC), device=h_BTC.device), lengths_B - 1]
        if not self.config.bidirectional:
            return last_BC
        return torch.cat([last_BC[:, : self.config.width], h_BTC[:, 0, self.config.width :]], 1)

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Recurrent | None:
        """Always `None`: shapes do not tell whether there is an output for every step."""
        return None


def _one_way(
    x_BTF: torch.Tensor, falling_B: torch.Tensor, weights: Iterable[torch.Tensor], thrifty: bool
) -> torch.Tensor:
    """States (B, T, C) of one layer of an LSTM, from the first step on; lengths fall.

    `_AT_ONCE` steps at a time, of the sequences that reach so far. The kernel keeps what it prepared for
    every shape that it ever saw, megabytes each: so there are few shapes.
    """
    count, steps = x_BTF.shape[:2]
    four, at_once = list(weights), min(_AT_ONCE, _few(steps))
    x_BTF = functional.pad(x_BTF, (0, 0, 0, -steps % at_once, 0, _few(count) - count))
    hidden = cell = x_BTF.new_zeros(1, len(x_BTF), four[1].shape[1])
    found = []

    def run(x_BTF: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        wanted = torch.is_grad_enabled()
        return torch.lstm(x_BTF, (hidden, cell), four, True, 1, 0.0, wanted, False, True)

    for first in range(0, steps, at_once):
        alive = _few(int((falling_B > first).sum()))
        piece = x_BTF[:alive, first : first + at_once]
        state = (hidden[:, :alive], cell[:, :alive])
        if thrifty:
            h_BTC, hidden, cell = again(run, piece, *state, weights=four)
        else:
            h_BTC, hidden, cell = run(piece, *state)
        found.append(functional.pad(h_BTC, (0, 0, 0, 0, 0, len(x_BTF) - alive)))
    return torch.cat(found, 1)[:count, :steps]


def _few(count: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24 … that is not below `count`."""
    whole = 1 << (count - 1).bit_length()
    half = whole * 3 // 4
    return half if whole >= 4 and half >= count else whole


def _turned(lengths_B: torch.Tensor, steps: int) -> torch.Tensor:
    """The step that comes at each place when a sequence is turned around inside its own length, (B, T)."""
    step_T = torch.arange(steps)
    turned_BT = lengths_B[:, None] - 1 - step_T
    return torch.where(turned_BT >= 0, turned_BT, step_T)


def _rows(x_BTC: torch.Tensor, step_BT: torch.Tensor) -> torch.Tensor:
    """Of each sequence the steps `step_BT`."""
    count, steps = step_BT.shape
    row_R = (step_BT + torch.arange(count)[:, None] * steps).flatten()
    return x_BTC.flatten(0, 1).index_select(0, row_R).view(count, steps, -1)
