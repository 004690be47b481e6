"""What a user may set about training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caudal.core.config import Frozen


class TrainingSettings(Frozen):
    """`steps` optimizer steps of `batch` samples; AdamW (Loshchilov and Hutter, ICLR 2019).

    `warm_up` is the share of the steps in which the rate rises, `clip` the largest norm of a gradient,
    `average` the number of steps over which weights are averaged for scoring and for the final model
    (0: not). Every `validate_every` steps (0: 20 times in all) the held-out part is scored; `patience`
    scores in a row without a better one end the training (0: never). `keep` says which model is kept: that of
    the best score, or the last, which a small held-out part tells apart no better than chance. With `balance`
    every class counts the same, however many samples it has: by weights, or, as `samples`, because those of
    the rarer classes are drawn more often. Of a model with weights from elsewhere the head
    alone learns in the share `head_first` of the steps, and the rest at the share `body_rate` of the rate. A
    checkpoint is written every
    `checkpoint_seconds`, or every `checkpoint_steps` where that is set.
    """

    steps: int = Field(3000, ge=1)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warm_up: float = Field(0.06, ge=0, lt=1)
    clip: float = Field(1.0, gt=0)
    average: int = Field(100, ge=0)
    validate_every: int = Field(0, ge=0)
    patience: int = Field(8, ge=0)
    keep: Literal["best", "last"] = "best"
    balance: bool | Literal["samples"] = False
    head_first: float = Field(0.0, ge=0, lt=1)
    body_rate: float = Field(1.0, gt=0, le=1)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    checkpoint_seconds: float = Field(60.0, gt=0)
    checkpoint_steps: int = Field(0, ge=0)

    @property
    def validation_steps(self) -> int:
        """Steps between two scores."""
        return self.validate_every or max(1, self.steps // 20)
