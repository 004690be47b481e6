"""The bytes of a pipeline's parts and of its work, as plain numbers. Records only."""

from __future__ import annotations

from typing import Literal

from caudal.core.config import Frozen
from caudal.core.units import Bytes

Decoding = Literal["whole", "sliced", "tiled 512", "tiled 256"]


class PartSize(Frozen):
    """A network. `bytes` are its weights in the type of computing, to the byte; `fp8` with 8-bit storage.

    `pinned` is what a page-locked copy takes, tensor by tensor, each rounded up to a power of two as torch's
    allocator does; `pinned_fp8` the same in 8 bits. `layer` is the largest layer, `block` the largest block
    that comes and goes with its weights on disk, `always` what is too small to come and go. `rounding` is
    what the allocator of a device takes beside the weights, for it takes whole segments; see `segments`.
    """

    name: str
    bytes: Bytes
    fp8: Bytes
    pinned: Bytes
    pinned_fp8: Bytes
    layer: Bytes
    block: Bytes
    always: Bytes
    rounding: Bytes = Bytes(0)
    rounding_fp8: Bytes = Bytes(0)


class WorkSize(Frozen):
    """The most bytes of tensors alive beside the weights, traced: encoding, a step, ways of decoding."""

    encoding: Bytes
    step: Bytes
    decoding: dict[Decoding, Bytes]


class PipelineSize(Frozen):
    """All parts and their work. `encoders` work first, `core` in every step, the decoder last."""

    encoders: tuple[PartSize, ...]
    core: tuple[PartSize, ...]
    decoder: PartSize
    work: WorkSize


class Place(Frozen):
    """What is taken before any weight: libraries, the face engine's models and its work at the smallest size;
    on a device its driver's part."""

    device: Literal["cuda", "cpu"]
    libraries: Bytes
    faces: Bytes = Bytes(0)
    detecting: Bytes = Bytes(0)
    driver_ram: Bytes = Bytes(0)
    driver_vram: Bytes = Bytes(0)
