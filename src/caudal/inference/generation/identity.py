"""From the numbers of faces to tokens that the ControlNet sees, and to what the UNet's adapter is given.

Legend: B pictures, F faces, E numbers of a face, T tokens of a face, C width of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Identity:
    """Faces as the networks take them. With guidance, `tokens_BTC` has the row without a face first.

    `embeds_BF1E` is what the stock pipeline calls image embeddings: rows without faces first, then with.
    """

    embeds_BF1E: torch.Tensor
    tokens_BTC: torch.Tensor

    def repeated(self, pictures: int, guided: bool) -> torch.Tensor:
        """The ControlNet's tokens for so many pictures."""
        if not guided:
            return self.tokens_BTC.repeat(pictures, 1, 1)
        return self.tokens_BTC.repeat_interleave(pictures, 0)


def identity(
    projection: Any, faces_FE: torch.Tensor, guided: bool, dtype: torch.dtype, device: Any
) -> Identity:
    """Project faces with the adapter's resampler, whose weights are, or come, on `device`.

    Without a face means zeros before the projection.
    """
    embeds_BF1E = faces_FE.to(device=device, dtype=dtype)[None, :, None, :]
    if guided:
        embeds_BF1E = torch.cat([torch.zeros_like(embeds_BF1E), embeds_BF1E])
    with torch.inference_mode():
        rows, faces = embeds_BF1E.shape[:2]
        tokens = projection(embeds_BF1E.flatten(0, 1))
        tokens_BTC = tokens.reshape(rows, faces * tokens.shape[1], tokens.shape[2])
    return Identity(embeds_BF1E, tokens_BTC.clone())
