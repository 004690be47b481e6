"""Says that a training has diverged: at the first loss or gradient that is no finite number.

An update with such a gradient leaves no weight whole, and the next checkpoint would hold nothing else.
"""

from __future__ import annotations

import math

from caudal.core.errors import Diverged
from caudal.core.messages import _

_MOST_SKIPPED = 24  # a scaler halves its scale after each: from 65536 to 0.004


class Finite:
    """Looks at the losses and gradients of steps, one after the other.

    With a `scaler`, as for float16, a gradient may pass what its numbers hold: the scaler leaves that update
    out, and tries the next one with a smaller scale. Of a loss, or of very many gradients in a row, no scale
    is the reason.
    """

    def __init__(self, scaler: bool) -> None:
        self._scaler = scaler
        self._skipped = 0

    def check_loss(self, loss: float, rate: float, step: int) -> None:
        """Look at the mean loss of step number `step`, at learning rate `rate`.

        Raises:
            Diverged: it is no finite number.
        """
        if not math.isfinite(loss):
            raise self._error(_("The loss of step {step} is {value}."), loss, rate, step)

    def check_gradient(self, norm: float, rate: float, step: int) -> None:
        """Look at the norm of a gradient, whose scale is taken off, after its update.

        Raises:
            Diverged: it is no finite number, and no scaler can help it.
        """
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        if self._skipped > (_MOST_SKIPPED if self._scaler else 0):
            raise self._error(_("The gradient of step {step} is {value}."), norm, rate, step)

    def _error(self, message: str, value: float, rate: float, step: int) -> Diverged:
        hint = _("The learning rate was {rate}: set a smaller one in the spec, for a run in another folder.")
        if self._scaler:
            hint = _("Set training.precision to bf16 or fp32, or a rate below {rate}, for another folder.")
        return Diverged(
            message.format(step=step, value=value), hint.format(rate=f"{rate:.3g}"), step=step, rate=rate
        )
