"""From a prompt to what the networks attend to. One that the encoders cannot read whole is refused.

The encoding is the stock pipeline's `encode_prompt`; here is what it must not do in silence.
"""

from __future__ import annotations

from typing import Any

import torch

from caudal.core.errors import UsageError
from caudal.core.messages import _


def check_length(prompt: str, tokenizers: list[Any], name: str = "prompt") -> None:
    """Refuse a prompt of which the encoders would read the beginning alone.

    Raises:
        UsageError: it is longer than an encoder's window; says which words would be lost.
    """
    for tokenizer in tokenizers:
        ids = tokenizer(prompt).input_ids
        most = tokenizer.model_max_length
        if len(ids) > most:
            lost = tokenizer.decode(ids[most - 1 : -1]).strip()
            raise UsageError(
                _(
                    "The {name} has {count} tokens, the text encoder reads {most}; lost would be: “{lost}”."
                ).format(name=name, count=len(ids), most=most, lost=lost),
                _("Shorten it, or move what matters less to a style or to the negative prompt."),
            )


def encode(
    pipeline: Any, prompt: str, negative: str, guided: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (1, 77, width) and pooled row (1, width) of the prompt, then those of the negative prompt.

    `pipeline` is a stock one whose text encoders are loaded. Without guidance the latter two are empty.
    """
    with torch.inference_mode():
        tokens, against, pooled, pooled_against = pipeline.encode_prompt(
            prompt,
            device=None,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            negative_prompt=negative or None,  # nothing is zeros, as the published models were trained
        )
    nothing = torch.empty(0)
    return (
        tokens.clone(),
        pooled.clone(),
        against.clone() if guided else nothing,
        pooled_against.clone() if guided else nothing,
    )
