"""A trained model as a plain function from a file's values to probabilities."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from caudal.data.normalize import Normalization, normalize


class Forward:
    """Maps `x_NHWC` in a file's own dtype and band order to probabilities `p_NKHW`, float32.

    Normalizes, puts 0 where a pixel is not valid, repeats the last row and column up to the model's
    multiple (and cuts that off again), and leaves the rest to the model. `as_they_lie`: the weights are
    neither moved nor laid out anew; on a CPU pixels are laid out as the weights are, or each layer would copy
    its own once more.
    """  # fmt: skip

    def __init__(
        self,
        model: nn.Module,
        probabilities: Callable[[torch.Tensor], torch.Tensor],
        normalization: Normalization,
        layout: int,
        device: str,
        autocast: Callable[[], AbstractContextManager[None]],
        as_they_lie: bool = False,
    ) -> None:
        self._model = model.eval()
        self._planes = as_they_lie and device == "cpu"
        if not as_they_lie:
            # The stub of `to` knows no device and memory format together.
            self._model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._probabilities = probabilities
        self._order = list(normalization.order[layout])
        self._tables = normalization.tables(device)[:, layout : layout + 1]
        self._device = device
        self._autocast = autocast
        self.multiple_px: int = model.multiple_px  # type: ignore[assignment]
        self.receptive_field_px: int = model.receptive_field_px  # type: ignore[assignment]

    @torch.inference_mode()
    def __call__(
        self, x_NHWC: npt.NDArray[Any], valid_NHW: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float32]:
        """Probabilities (N, K, H, W); `valid_NHW` is `None` where every pixel is valid."""
        if self._order != list(range(x_NHWC.shape[3])):
            x_NHWC = x_NHWC[:, :, :, self._order]
        x = torch.from_numpy(np.ascontiguousarray(x_NHWC)).to(self._device)
        layouts = torch.zeros(len(x), dtype=torch.long, device=self._device)
        x_NCHW = normalize(x, layouts, self._tables)
        if valid_NHW is not None:
            valid = torch.from_numpy(valid_NHW).to(self._device)[:, None]
            x_NCHW = torch.where(valid, x_NCHW, 0.0)
        high, wide = x_NCHW.shape[2:]
        pad = (0, -wide % self.multiple_px, 0, -high % self.multiple_px)
        if any(pad):
            x_NCHW = F.pad(x_NCHW, pad, mode="replicate").contiguous(memory_format=torch.channels_last)
        if self._planes:
            x_NCHW = x_NCHW.contiguous()
        with self._autocast():
            scores = self._model(x_NCHW)
        p_NKHW = self._probabilities(scores)[:, :, :high, :wide]
        result: npt.NDArray[np.float32] = p_NKHW.cpu().numpy()
        return result
