"""What it takes to do a step again as if it had not been tried: its error is told, its state put back.

Everything that a forward pass changes beside gradients is kept: the buffers of the model (running statistics
of normalization) and the generators that layers draw from. Augmentation draws by the sample's number and
needs no keeping.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from caudal.core.errors import OutOfMemory
from caudal.core.messages import _
from caudal.memory import vram

_SAYS_SO = ("out of memory", "not enough memory", "can't allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory for a tensor could not be had, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _SAYS_SO)


@contextmanager
def naming_want_of_memory(doing: str, **facts: object) -> Iterator[None]:
    """Let what runs out of memory inside end as `OutOfMemory`, with what was being done.

    Raises:
        OutOfMemory: a tensor found no room.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(
            _("Memory ran out at {doing}.").format(doing=doing),
            _("Free memory that others hold, or set a smaller patch or model in the spec."),
            **facts,
        ) from None


class Retry:
    """The state of `model` before a step, to be put back when the step failed. Its copies are made once."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._kept = [torch.empty_like(buffer) for buffer in self._buffers]
        self._device = next((b.device for b in model.parameters() if b.device.type == "cuda"), None)
        self._host_draws = torch.get_rng_state()
        self._device_draws: torch.Tensor | None = None

    @torch.no_grad()
    def keep(self) -> None:
        """Note the state before a step."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        self._host_draws = torch.get_rng_state()
        if self._device is not None:
            self._device_draws = torch.cuda.get_rng_state(self._device)

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what a step that failed has changed."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)
        torch.set_rng_state(self._host_draws)
        if self._device_draws is not None:
            assert self._device is not None
            torch.cuda.set_rng_state(self._device_draws, self._device)
            vram.trim()  # what the larger part held lies in pieces of its size
