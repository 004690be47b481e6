"""Recurrent networks over sequences of any length: LSTM (Hochreiter and Schmidhuber, Neural Computation
1997) and GRU (Cho et al., EMNLP 2014).

No dropout: its masks would depend on how a batch is cut into micro-batches.
Legend: B samples, T steps, F features, C channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from caudal.core.config import Frozen
from caudal.models.pooling import Pooling, StepPool
from caudal.models.ragged import Sequences, filled


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
    recompute_levels: ClassVar[int] = 0

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

    def forward(self, sequences: Sequences) -> torch.Tensor:
        """Scores (B, outputs); (B, T, outputs) with `per_step`: those after a sequence's end mean nothing."""
        x_BTF = filled(sequences.x_BTF, self.config.indicator)
        lengths_B = sequences.lengths_B.clamp(min=1).cpu()
        # Packed, so that the way back begins at each sequence's own end.
        packed = pack_padded_sequence(x_BTF, lengths_B, batch_first=True, enforce_sorted=False)
        states, ends = self.cells(packed)
        if self.pool is not None and self.config.pooling == "last":
            ends_LBC = ends[0] if self.config.kind == "lstm" else ends
            directions = 2 if self.config.bidirectional else 1
            scores: torch.Tensor = self.head(torch.cat(list(ends_LBC[-directions:]), 1))
            return scores
        h_BTC, _lengths = pad_packed_sequence(states, batch_first=True, total_length=x_BTF.shape[1])
        if self.pool is not None:
            h_BTC = self.pool(h_BTC, sequences.known())
        scores = self.head(h_BTC)
        return scores

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Recurrent | None:
        """Always `None`: shapes do not tell whether there is an output for every step."""
        return None
