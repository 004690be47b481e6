"""The sizes of a pipeline without its weights: fake tensors run through the real networks.

Weights are exact. Work is what tensors take; kernels' own workspaces are not seen and the plan adds for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.inference.generation.decode import OVERLAP, set_way
from caudal.inference.generation.streamed import blocks_of
from caudal.memory.generation.segments import segment_bytes
from caudal.memory.generation.sizes import Decoding, PartSize, PipelineSize, WorkSize
from caudal.memory.trace import peak_bytes
from caudal.models.generation import sdxl
from caudal.models.generation.adapter import AdapterSizes, sizes_of
from caudal.models.generation.build import build
from caudal.models.generation.face_controlnet import conditioned_on
from caudal.models.generation.layout import ModelFolder, read_config
from caudal.models.generation.part import Part, kept_wide, put
from caudal.models.tensor_files import open_tensors

_TOKENS = 77


@dataclass(frozen=True)
class Blueprint:
    """Configurations of all parts: of a model folder, or the published ones. `controls` are further ones."""

    configs: dict[str, dict[str, Any]]
    adapter: AdapterSizes
    controls: tuple[str, ...] = ()
    key: str = field(default="published", compare=True)

    def __hash__(self) -> int:
        return hash((self.key, self.controls, self.adapter))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blueprint) and (self.key, self.controls) == (other.key, other.controls)


def published(controls: int = 0) -> Blueprint:
    """SDXL with an identity ControlNet, an adapter, and so many further ControlNets."""
    names = tuple(f"control {number + 1}" for number in range(controls))
    configs = {
        "text_encoder": sdxl.TEXT_ENCODER, "text_encoder_2": sdxl.TEXT_ENCODER_2, "unet": sdxl.UNET,
        "identity": sdxl.CONTROLNET, "vae": sdxl.VAE,
    } | dict.fromkeys(names, sdxl.CONTROLNET)  # fmt: skip
    return Blueprint(configs, AdapterSizes(**sdxl.ADAPTER), names)


def of_folder(folder: ModelFolder) -> Blueprint:
    """Of a model folder, by its configurations and the adapter's header.

    Raises:
        BadModel: a part cannot be read.
    """
    source = open_tensors(folder.adapter)
    adapter = sizes_of(source)
    source.close()
    configs = {name: read_config(folder.folder(name)) for name in folder.parts()}
    key = "|".join(str(folder.folder(name)) for name in folder.parts())
    return Blueprint(configs, adapter, tuple(folder.controls), key)


@lru_cache(maxsize=16)
def pipeline_size(
    blueprint: Blueprint,
    width: int,
    height: int,
    pictures: int,
    guided: bool,
    dtype: torch.dtype,
    decoder_dtype: torch.dtype,
) -> PipelineSize:
    """The sizes of a pipeline that makes `pictures` at once, of so many pixels, computed in `dtype`.

    Raises:
        BadModel: a configuration that cannot be used.
    """
    parts = {
        name: Part(name, build(name, config, blueprint.adapter if name == "unet" else None))
        for name, config in blueprint.configs.items()
    }
    types = dict.fromkeys(parts, dtype) | {"vae": decoder_dtype}
    sizes = {name: part_size(part, types[name]) for name, part in parts.items()}
    core = ("unet", "identity", *blueprint.controls)
    mode = FakeTensorMode()
    with mode, torch.no_grad(), _said_plainly():
        for name, part in parts.items():
            _fake(part.module, types[name], mode)
        encoding = max(_encoding(parts[name].module) for name in ("text_encoder", "text_encoder_2"))
        step = _step(parts, blueprint, width, height, pictures * (2 if guided else 1), dtype)
        decoding = _decodings(parts["vae"].module, width, height, pictures, decoder_dtype)
    return PipelineSize(
        encoders=(sizes["text_encoder"], sizes["text_encoder_2"]),
        core=tuple(sizes[name] for name in core),
        decoder=sizes["vae"],
        work=WorkSize(encoding=encoding, step=step, decoding=decoding),
    )


@contextmanager
def _said_plainly() -> Iterator[None]:
    """Parts whose shapes do not meet are a fault of the folder, not of ours."""
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise BadModel(
            _("The parts of this model do not go together: {why}.").format(
                why=str(error).splitlines()[0][:200].rstrip(".")
            ),
            _("Give parts that were made for one another."),
        ) from None


def part_size(part: Part, dtype: torch.dtype) -> PartSize:
    """The bytes of a part's weights in every way that they may be held."""
    wide = kept_wide(part.module)
    full: dict[str, int] = {}
    fp8: dict[str, int] = {}
    for name, tensor in part.tensors().items():
        floating = tensor.dtype.is_floating_point
        full[name] = tensor.numel() * (dtype if floating else tensor.dtype).itemsize
        fp8[name] = full[name] if name in wide or not floating else tensor.numel()
    blocks, small = blocks_of(part, dtype)
    layers = [
        sum(full.get(f"{prefix}.{name}" if prefix else name, 0) for name in module._parameters)
        for prefix, module in part.module.named_modules()
    ]
    return PartSize(
        name=part.name,
        bytes=Bytes(sum(full.values())),
        fp8=Bytes(sum(fp8.values())),
        pinned=Bytes(sum(map(_rounded, full.values()))),
        pinned_fp8=Bytes(sum(map(_rounded, fp8.values()))),
        layer=Bytes(max(layers)),
        block=Bytes(max((block.bytes for block in blocks), default=0)),
        always=Bytes(sum(full[name] for name in small)),
        rounding=Bytes(segment_bytes(full.values()) - sum(full.values())),
        rounding_fp8=Bytes(segment_bytes(fp8.values()) - sum(fp8.values())),
    )


def _rounded(nbytes: int) -> int:
    """What torch's allocator of page-locked memory takes for so many bytes."""
    return 1 << (nbytes - 1).bit_length() if nbytes > 1 else nbytes


def _fake(module: torch.nn.Module, dtype: torch.dtype, mode: FakeTensorMode) -> None:
    """Give a network fake weights in the type of computing."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        wanted = dtype if tensor.dtype.is_floating_point else tensor.dtype
        put(module, name, torch.empty(tensor.shape, dtype=wanted))
    for one in module.modules():
        for name, buffer in one._buffers.items():
            if buffer is not None and not isinstance(buffer, torch._subclasses.FakeTensor):
                one._buffers[name] = mode.from_tensor(buffer)


def _peak(run: Callable[[], object], modules: Iterable[torch.nn.Module]) -> Bytes:
    return peak_bytes(
        run, [tensor for module in modules for tensor in module.state_dict(keep_vars=True).values()]
    )


def _encoding(encoder: Any) -> Bytes:
    ids = torch.zeros((1, _TOKENS), dtype=torch.int64)
    return _peak(lambda: encoder(ids, output_hidden_states=True), [encoder])


def _step(
    parts: dict[str, Part], blueprint: Blueprint, width: int, height: int, rows: int, dtype: torch.dtype
) -> Bytes:
    unet, adapter = parts["unet"].module, blueprint.adapter
    time, cross = torch.zeros((), dtype=torch.int64), unet.config.cross_attention_dim
    pooled_width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    nets = [parts[name].module for name in ("identity", *blueprint.controls)]
    shrunk = _shrunk(parts["vae"].module)

    def run() -> None:
        def new(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype)

        latents = new(rows, unet.config.in_channels, height // shrunk, width // shrunk)
        text, added = (
            new(rows, _TOKENS, cross),
            {"text_embeds": new(rows, pooled_width), "time_ids": new(rows, 6)},
        )
        down, mid = None, None
        with conditioned_on(new(rows, adapter.tokens, cross)):
            for net in nets:
                shown = new(rows, 3, height, width)
                more, more_mid = net(latents, time, text, shown, added_cond_kwargs=added, return_dict=False)
                down = more if down is None else [a + b for a, b in zip(down, more, strict=True)]
                mid = more_mid if mid is None else mid + more_mid
        added["image_embeds"] = [new(rows, 1, 1, adapter.embedding)]  # type: ignore[assignment]
        unet(
            latents, time, text, added_cond_kwargs=added, return_dict=False,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
        )  # fmt: skip

    return _peak(run, [unet, *nets])


def _shrunk(vae: Any) -> int:
    """Pixels of a picture for one of its latent picture, on each side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _decodings(vae: Any, width: int, height: int, pictures: int, dtype: torch.dtype) -> dict[Decoding, Bytes]:
    """Each way of decoding. All tiles are kept until they are put together: counted; one is traced."""
    canvas = 3 * width * height * 4
    one = _decoding(vae, width, height, 1, dtype)
    found: dict[Decoding, Bytes] = {
        "whole": one if pictures == 1 else _decoding(vae, width, height, pictures, dtype),
        "sliced": Bytes(one + (pictures - 1) * canvas),
    }
    for way, side in (("tiled 512", 512), ("tiled 256", 256)):
        step = int(side * (1 - OVERLAP))
        tiles = -(-width // step) * -(-height // step)
        kept = tiles * 3 * side * side * dtype.itemsize
        within = _decoding(vae, min(width, side), min(height, side), 1, dtype)
        found[way] = min(found["sliced"], Bytes(within + kept + (pictures + 1) * canvas))  # type: ignore[index]
    return found


def _decoding(vae: Any, width: int, height: int, pictures: int, dtype: torch.dtype) -> Bytes:
    set_way(vae, "whole")
    shrunk = _shrunk(vae)
    shape = (pictures, vae.config.latent_channels, height // shrunk, width // shrunk)

    def run() -> torch.Tensor:
        x_BCHW = vae.decode(torch.empty(shape, dtype=dtype), return_dict=False)[0]
        return x_BCHW.float().mul_(0.5).add_(0.5)  # type: ignore[no-any-return]

    return _peak(run, [vae])
