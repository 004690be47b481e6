"""A part of the pipeline and where its bytes are: sized, loaded tensor by tensor, emptied.

The peak of a load is the part's own bytes in their final type and a scratch of 16 MiB. What a loaded part
does is not known here, nor when it should be loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.memory.generation.pages import want_large_pages
from caudal.models.generation.adapter import PROJECTION, projection, sizes_of, tensors_for
from caudal.models.generation.build import build
from caudal.models.generation.layout import ModelFolder, read_config, weight_files
from caudal.models.generation.libraries import need
from caudal.models.generation.low_rank import Addition, additions
from caudal.models.tensor_files import Entry, TensorSource, open_tensors

FP8 = torch.float8_e4m3fn
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# What diffusers' layer-wise casting leaves alone, beside each model's own list; see `kept_wide`.
_FP8_SKIPPED = ("pos_embed", "patch_embed", "norm", "^proj_in$", "^proj_out$")
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass
class Part:
    """A network on the meta device, and for each of its tensors the file and the place in it.

    `additions` are what an adapter of low rank adds to some.
    """

    name: str
    module: Any
    places: dict[str, tuple[TensorSource, Entry]] = field(default_factory=dict)
    additions: dict[str, Addition] = field(default_factory=dict)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its parameters and stored buffers by name."""
        values: dict[str, torch.Tensor] = self.module.state_dict(keep_vars=True)
        return values

    def fill(
        self, names: Iterable[str], device: str, dtype: torch.dtype, fp8: Set[str] = frozenset()
    ) -> None:
        """Load the tensors `names` to `device`; floating-point ones in `dtype`, those of `fp8` in 8 bits.

        Raises:
            BadModel: a file ends early.
        """
        own = {id(source): source for source, _entry in self.places.values()}
        self._fill(iter(self._as_they_lie(names)), own, device, dtype, fp8)

    def _fill(
        self, names: Iterator[str], sources: Mapping[int, TensorSource], device: str, dtype: torch.dtype,
        fp8: Set[str],
    ) -> None:  # fmt: skip
        """Fill what `names` still gives, through these sources, which stand for the part's own."""
        for name in names:
            source, entry = self.places[name]
            wide = entry.dtype if not entry.dtype.is_floating_point else FP8 if name in fp8 else dtype
            target = torch.empty(entry.shape, dtype=wide, device=device)
            if target.device.type == "cpu":
                want_large_pages(target.data_ptr(), target.nbytes)
            addition = self.additions.get(name)
            # Added before it is narrowed: 8 bits have no room for what is small.
            full = target if addition is None or wide is dtype else torch.empty_like(target, dtype=dtype)
            sources[id(source)].fill(entry, full)
            if addition is not None:
                addition.add_to(full)
            if full is not target:
                target.copy_(full)
            put(self.module, name, target)

    def _as_they_lie(self, names: Iterable[str]) -> list[str]:
        """In the order of the files: what the system reads ahead is then what is wanted next."""

        def place(name: str) -> tuple[str, int]:
            source, entry = self.places[name]
            return str(source.path), entry.begin

        return sorted(names, key=place)

    def load(self, device: str, dtype: torch.dtype, fp8: bool = False) -> Any:
        """Load all that is not loaded yet; returns the network.

        Two read at once: taking fresh memory, waiting for the disk and converting cost about the same.

        Raises:
            BadModel: a file ends early.
        """
        narrow = set(self.tensors()) - kept_wide(self.module) if fp8 else set()
        empty = [name for name, tensor in self.tensors().items() if tensor.is_meta]
        queue = iter(self._as_they_lie(empty))
        own = {id(source): source for source, _entry in self.places.values()}
        second = {key: open_tensors(source.path) for key, source in own.items()}
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="caudal-weights") as pool:
                helper = pool.submit(self._fill, queue, second, device, dtype, narrow)
                self._fill(queue, own, device, dtype, narrow)
                helper.result()
        finally:
            for source in second.values():
                source.close()
        for module in self.module.modules():  # buffers that no file holds
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(device)
        return self.module

    def empty(self) -> None:
        """Give its bytes back; it can be loaded again."""
        for name, tensor in self.tensors().items():
            # The file knows the shape; of a block that came and went, nothing is left that does.
            put(self.module, name, torch.empty(self.places[name][1].shape, dtype=tensor.dtype, device="meta"))

    def close(self) -> None:
        """Close its files."""
        sources = [source for source, _entry in self.places.values()]
        sources += [addition.source for addition in self.additions.values()]
        for source in {id(source): source for source in sources}.values():
            source.close()


def open_part(name: str, folder: ModelFolder) -> Part:
    """A part of a model folder, with every tensor found and its shape checked; no weight is read.

    Raises:
        BadModel: a tensor is missing, of another shape, or the files are broken.
    """
    adapter = open_tensors(folder.adapter) if name == "unet" else None
    module = build(name, read_config(folder.folder(name)), sizes_of(adapter) if adapter else None)
    part = Part(name, module)
    wanted = part.tensors()
    if adapter:
        part.places |= {key: (adapter, entry) for key, entry in tensors_for(module, adapter).items()}
    for path in weight_files(folder.folder(name)):
        source = open_tensors(path)
        for entry in source.entries.values():
            key = _named(entry.name, wanted)
            if key is not None:
                part.places[key] = (source, entry)
    for key, tensor in wanted.items():
        place = part.places.get(key)
        if place is None:
            raise _unlike(folder, name, _("“{key}” is missing").format(key=key))
        if place[1].shape != tuple(tensor.shape):
            raise _unlike(
                folder, name, _("“{key}” is {there} and should be {wanted}").format(
                    key=key, there=place[1].shape, wanted=tuple(tensor.shape)
                ),
            )  # fmt: skip
    if name == "unet" and folder.lcm is not None:
        part.additions = additions(open_tensors(folder.lcm), wanted)
    return part


def projection_of(unet: Part) -> Part:
    """The projection of faces inside a UNet as a part of its own, over the same file and with nothing loaded.

    For where the UNet's own cannot be called alone: offloading brings weights in the order of whole steps.
    """
    prefix = f"{PROJECTION}."
    places = {
        name.removeprefix(prefix): place for name, place in unet.places.items() if name.startswith(prefix)
    }
    source, _entry = next(iter(places.values()))
    return Part("projection", projection(sizes_of(source)).eval().requires_grad_(False), places)


def kept_wide(module: nn.Module) -> set[str]:
    """Names of the tensors that 8-bit storage leaves in the type of computing: norms, positions, odd layers.

    The rule is that of diffusers' layer-wise casting, which does the casting.
    """
    castable = need("diffusers.hooks._common")._GO_LC_SUPPORTED_PYTORCH_LAYERS
    patterns = (*_FP8_SKIPPED, *(getattr(module, "_skip_layerwise_casting_patterns", None) or ()))
    narrow: set[str] = set()

    def walk(one: nn.Module, prefix: str) -> None:
        if any(re.search(pattern, prefix) for pattern in patterns):
            return
        if isinstance(one, castable):
            narrow.update(f"{prefix}.{name}" for name in one.state_dict())
            return
        for name, child in one.named_children():
            walk(child, f"{prefix}.{name}" if prefix else name)

    walk(module, "")
    return set(module.state_dict()) - narrow


def put(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer."""
    path, _dot, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[leaf] = tensor


def _named(name: str, wanted: dict[str, torch.Tensor]) -> str | None:
    """The name by which the network knows a tensor of a file; files outlive libraries."""
    for old, new in _OLD_NAMES.items():
        if old in name and name not in wanted:
            name = name.replace(old, new)
    for one in (name, name.removeprefix("text_model."), f"text_model.{name}"):
        if one in wanted:
            return one
    return None


def _unlike(folder: ModelFolder, name: str, why: str) -> BadModel:
    return BadModel(
        _("The weights of {name} are not those of its configuration: {why}.").format(name=name, why=why),
        _("Fetch {path} again.").format(path=folder.folder(name)),
    )
