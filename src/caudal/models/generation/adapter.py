"""The identity adapter: a resampler from a face's numbers to tokens, and a second attention over them.

Reads the published layout (`image_proj.*`, `ip_adapter.*`; as safetensors, or as a `.bin` opened for weights
alone) and puts its tensors into a UNet made of stock diffusers modules. Loading is by name and by row, so
that no tensor is held twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.models.generation.libraries import need
from caudal.models.tensor_files import Entry, TensorSource

_HEAD_WIDTH = 64  # the published resampler's
PROJECTION = "encoder_hid_proj.image_projection_layers.0"
_RENAMED = (
    (r"layers\.(\d+)\.0\.norm1\.", r"layers.\1.ln0."),
    (r"layers\.(\d+)\.0\.norm2\.", r"layers.\1.ln1."),
    (r"layers\.(\d+)\.0\.to_q\.", r"layers.\1.attn.to_q."),
    (r"layers\.(\d+)\.0\.to_out\.", r"layers.\1.attn.to_out.0."),
    (r"layers\.(\d+)\.1\.0\.", r"layers.\1.ff.0."),
    (r"layers\.(\d+)\.1\.1\.", r"layers.\1.ff.1.net.0.proj."),
    (r"layers\.(\d+)\.1\.3\.", r"layers.\1.ff.1.net.2."),
)


@dataclass(frozen=True)
class AdapterSizes:
    """What the adapter's tensors say of it: numbers of a face, tokens made of it, widths, heads, layers."""

    embedding: int
    tokens: int
    width: int
    heads: int
    depth: int
    output: int


def sizes_of(source: TensorSource) -> AdapterSizes:
    """The sizes of the adapter in a file, from its shapes alone.

    Raises:
        BadModel: it is another kind of adapter, or its tensors do not go together.
    """
    shapes = {name: entry.shape for name, entry in source.entries.items()}
    try:
        _one, tokens, width = shapes["image_proj.latents"]
        output, _width = shapes["image_proj.proj_out.weight"]
        _width, embedding = shapes["image_proj.proj_in.weight"]
        inner, _width = shapes["image_proj.layers.0.0.to_q.weight"]
    except (KeyError, ValueError):
        raise _wrong(source.path, _("it has no resampler from a face to tokens")) from None
    layers = {int(found[1]) for name in shapes if (found := re.match(r"image_proj\.layers\.(\d+)\.", name))}
    return AdapterSizes(embedding, tokens, width, inner // _HEAD_WIDTH, len(layers), output)


def install(unet: Any, sizes: AdapterSizes) -> None:
    """Give a UNet the adapter's modules, on the meta device, with nothing in them yet.

    Raises:
        BadModel: the adapter is for a UNet of other widths.
    """
    attention_processor = need("diffusers.models.attention_processor")
    embeddings = need("diffusers.models.embeddings")
    if sizes.output != unet.config.cross_attention_dim:
        raise _wrong(
            None,
            _("its tokens are {output} wide and the UNet attends to {width}").format(
                output=sizes.output, width=unet.config.cross_attention_dim
            ),
        )
    with torch.device("meta"):
        processors = dict(unet.attn_processors)
        for name in _crossing(unet):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            processors[name] = attention_processor.IPAdapterAttnProcessor2_0(
                hidden_size=attention.to_q.out_features,
                cross_attention_dim=sizes.output,
                num_tokens=(sizes.tokens,),
                scale=1.0,
            )
    unet.set_attn_processor(processors)
    unet.encoder_hid_proj = embeddings.MultiIPAdapterImageProjection([projection(sizes)])
    unet.config.encoder_hid_dim_type = "ip_image_proj"


def projection(sizes: AdapterSizes) -> Any:
    """The network from a face's numbers to tokens, on the meta device."""
    with torch.device("meta"):
        return need("diffusers.models.embeddings").IPAdapterPlusImageProjection(
            embed_dims=sizes.embedding,
            output_dims=sizes.output,
            hidden_dims=sizes.width,
            depth=sizes.depth,
            heads=sizes.heads,
            num_queries=sizes.tokens,
        )


def tensors_for(unet: Any, source: TensorSource) -> dict[str, Entry]:
    """Where in the file each of the installed adapter's parameters lies, by its name in the UNet.

    Raises:
        BadModel: a tensor is missing, is not known, or has another shape than the UNet's module.
    """
    order = list(unet.attn_processors)
    found: dict[str, Entry] = {}
    for name, entry in source.entries.items():
        kind, _dot, rest = name.partition(".")
        if kind == "image_proj":
            found |= _projected(rest, entry)
        elif kind == "ip_adapter" and (match := re.fullmatch(r"(\d+)\.(to_[kv])_ip\.weight", rest)):
            if int(match[1]) >= len(order):
                raise _wrong(source.path, _("it has more layers than the UNet (“{name}”)").format(name=name))
            found[f"{order[int(match[1])]}.{match[2]}_ip.0.weight"] = entry
        else:
            raise _wrong(source.path, _("it holds “{name}”, which is not known").format(name=name))
    wanted = {
        name: tuple(tensor.shape)
        for name, tensor in unet.state_dict().items()
        if name.startswith("encoder_hid_proj.") or "_ip.0." in name
    }
    for name in sorted(wanted.keys() ^ found.keys()):
        raise _wrong(source.path, _("“{name}” is on one side only").format(name=name))
    for name, entry in found.items():
        if entry.shape != wanted[name]:
            raise _wrong(
                source.path,
                _("“{name}” is {there} and the UNet needs {wanted}").format(
                    name=entry.name, there=entry.shape, wanted=wanted[name]
                ),
            )
    return found


def _projected(rest: str, entry: Entry) -> dict[str, Entry]:
    if match := re.fullmatch(r"layers\.(\d+)\.0\.to_kv\.weight", rest):  # keys above, values below
        attention = f"{PROJECTION}.layers.{match[1]}.attn"
        return {f"{attention}.to_{kind}.weight": entry.rows(part, 2) for part, kind in enumerate("kv")}
    for pattern, name in _RENAMED:
        rest = re.sub(rf"^{pattern}", name, rest)
    return {f"{PROJECTION}.{rest}": entry}


def _crossing(unet: Any) -> list[str]:
    return [name for name in unet.attn_processors if name.endswith("attn2.processor")]


def _wrong(path: Path | None, why: str) -> BadModel:
    return BadModel(
        _("{path} is no identity adapter for this model: {why}.").format(path=path or _("The file"), why=why),
        _("Give an adapter that was trained for this base model and this face engine."),
    )
