"""The margin of predictions by a trained model, learned from earlier ones of its kind (`memory/margin`).

A kind is an architecture with its settings, on a device, with its weights at a position of their lever. What
tiles and samples of other shapes take is rehearsed each time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from caudal.core.units import Bytes
from caudal.memory import margin
from caudal.models.weights import ModelCard


@dataclass(frozen=True)
class InferenceMargin:
    """`share` of a prediction is added to it."""

    kind: str
    share: float

    @classmethod
    def of(
        cls, card: ModelCard, device: str, position: int = 0, first: float = margin.FIRST
    ) -> InferenceMargin:
        """What inferences with this model, or one like it, have taught so far; before any, `first`."""
        config = json.dumps(card.config, sort_keys=True, default=str)
        kind = f"predict {card.task} {card.architecture} {config} {card.bands} {device} weights {position}"
        return cls(kind, margin.learned(kind, first)[0])

    def beyond(self, nbytes: float) -> Bytes:
        """A prediction with its margin."""
        return Bytes(nbytes * (1 + self.share))

    def note(self, predicted: int, measured: int) -> None:
        """Keep what came of a prediction that `beyond` gave."""
        margin.note(self.kind, int(predicted / (1 + self.share)), int(measured))
