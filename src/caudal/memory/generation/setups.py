"""The levers of generation: which combinations there are, in order of price, and what each of them holds.

    levers, cheapest first
      decoder          whole · one picture at a time · tiles of 512 px · of 256 px (blended)
      encoders         kept · freed after encoding (read again for a new prompt)
      offload          none · group (page-locked copies in RAM, a layer at a time on the device)
                       · group, lean (the copies are not page-locked: less RAM, slower)
      storage          full · fp8 (8 bits at rest, computed in full: other numbers)
      offload          model (one network on the device at a time) · disk (weights are read in every step)

Two ways of offloading are never in force at once. What a user set (size, batch, steps) is no lever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from caudal.core.config import Frozen
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.memory.generation.sizes import Decoding, PartSize, PipelineSize, Place
from caudal.memory.plan import Holder, Pool

Offload = Literal["none", "group", "group lean", "model", "disk"]
DECODINGS: tuple[Decoding, ...] = ("whole", "sliced", "tiled 512", "tiled 256")
_SCRATCH = 16 * MIB  # of a load: two read, see models/tensor_files.py
_KERNELS = 0.25  # beside the tensors that a trace sees: workspaces, packed copies, the allocator's remainders
_IN_FLIGHT = 2  # layers or blocks: the one at work and the one that is coming


class Setup(Frozen):
    """One combination of levers. `resident` bytes of weights stay in memory although the rest is on disk."""

    encoders: Literal["kept", "freed"] = "kept"
    offload: Offload = "none"
    storage: Literal["full", "fp8"] = "full"
    decoding: Decoding = "whole"
    resident: Bytes = Bytes(0)


_ON_CARD = (
    Setup(),
    Setup(encoders="freed"),
    Setup(encoders="freed", offload="group"),
    Setup(encoders="freed", offload="group lean"),
    Setup(encoders="freed", storage="fp8"),
    Setup(encoders="freed", offload="group", storage="fp8"),
    Setup(encoders="freed", offload="group lean", storage="fp8"),
    Setup(encoders="freed", offload="model"),
    Setup(encoders="freed", offload="disk"),
)
_ON_HOST = tuple(setup for setup in _ON_CARD if setup.offload in ("none", "disk"))


def setups(device: str, exact: bool = False) -> Iterator[Setup]:
    """Every combination for a device, the cheapest first; with `exact`, those alone that change no number."""
    for setup in _ON_CARD if device == "cuda" else _ON_HOST:
        for decoding in DECODINGS:
            if exact and (setup.storage == "fp8" or decoding.startswith("tiled")):
                continue
            yield setup.model_copy(update={"decoding": decoding})


def holders(setup: Setup, size: PipelineSize, place: Place) -> list[Holder]:
    """Who holds what when most is held: of each pool, the rows of the phase in which it is fullest."""
    phases = [_rows(phase, setup, size, place) for phase in ("encoding", "steps", "decoding")]
    phases = [[*rows, _rounding(rows, setup, size)] for rows in phases]
    most: list[Holder] = []
    for pool in ("ram", "vram"):
        rows = [[holder for holder in phase if holder.pool == pool and holder.bytes] for phase in phases]
        most += max(rows, key=lambda held: sum(holder.bytes for holder in held))
    return most


def _rows(phase: str, setup: Setup, size: PipelineSize, place: Place) -> list[Holder]:
    """The holders of one phase."""
    work: Pool = "vram" if place.device == "cuda" else "ram"
    rows = [
        Holder(name=_("interpreter and libraries"), bytes=place.libraries, exact=False),
        Holder(name=_("face engine"), bytes=place.faces, exact=False),
        Holder(name=_("looking for faces (estimate)"), bytes=place.detecting, exact=False),
        Holder(name=_("scratch of loading"), bytes=Bytes(_SCRATCH)),
        Holder(name=_("driver, host side (estimate)"), bytes=place.driver_ram, exact=False),
        Holder(name=_("driver and kernels (estimate)"), bytes=place.driver_vram, pool="vram", exact=False),
    ]
    if phase == "encoding":
        rows += _encoders(setup, size, work)
        if setup.encoders == "kept":
            rows += [*_core(setup, size, work, at_work=False), _weights(size.decoder, work)]
        return [*rows, *_working(_("encoding"), size.work.encoding, work)]
    if setup.encoders == "kept":
        rows += _encoders(setup, size, work)
    if setup.offload == "model":
        rows += [_weights(part, "ram") for part in (*size.encoders, size.decoder)]
    rows += _core(setup, size, work, at_work=phase == "steps")
    if phase == "steps":
        if setup.offload != "model":
            rows.append(_weights(size.decoder, work))
        return [*rows, *_working(_("activations of a step"), size.work.step, work)]
    rows.append(_weights(size.decoder, work))
    return [*rows, *_working(_("decoding"), size.work.decoding[setup.decoding], work)]


def _rounding(rows: list[Holder], setup: Setup, size: PipelineSize) -> Holder:
    """What the device's allocator takes beside the weights that are there."""
    there = {holder.name for holder in rows if holder.pool == "vram"}
    taken = 0
    for part in (*size.encoders, *size.core, size.decoder):
        narrow = setup.storage == "fp8" and part in size.core
        taken += (part.rounding_fp8 if narrow else part.rounding) if part.name in there else 0
    return Holder(name=_("rounding of the allocator"), bytes=Bytes(taken), pool="vram", exact=False)


def _encoders(setup: Setup, size: PipelineSize, work: Pool) -> list[Holder]:
    if setup.offload == "disk":
        return _streamed(size.encoders, work, _("text encoders"))
    rows = [_weights(part, work) for part in size.encoders]
    if setup.offload == "model":
        rows += [_weights(part, "ram") for part in (*size.encoders, *size.core, size.decoder)]
    return rows


def _core(setup: Setup, size: PipelineSize, work: Pool, at_work: bool) -> list[Holder]:
    """The networks that take part in every step, wherever they are."""
    fp8 = setup.storage == "fp8"
    layer = max(part.layer for part in size.core)
    rows: list[Holder] = []
    for part in size.core:
        held = part.fp8 if fp8 else part.bytes
        if setup.offload == "none":
            rows.append(Holder(name=part.name, bytes=held, pool=work))
        elif setup.offload == "group":
            pinned = part.pinned_fp8 if fp8 else part.pinned
            rows.append(Holder(name=_("{part}, page-locked").format(part=part.name), bytes=pinned))
        elif setup.offload in ("group lean", "model"):
            rows.append(Holder(name=part.name, bytes=held))
        if setup.offload == "model" and at_work:
            rows.append(Holder(name=part.name, bytes=held, pool=work))
    if setup.offload in ("group", "group lean"):
        moving = Bytes(_IN_FLIGHT * layer)
        rows.append(Holder(name=_("layers on the way"), bytes=moving, pool=work))
        if setup.offload == "group lean":
            rows.append(Holder(name=_("layers on the way"), bytes=Bytes(2 * moving)))  # rounded up, too
    if setup.offload == "disk":
        rows += _streamed(size.core, work, _("networks"))
        rows.append(Holder(name=_("blocks that stay"), bytes=setup.resident, pool=work))
    elif fp8 and at_work:
        rows.append(Holder(name=_("a layer in full"), bytes=layer, pool=work))
    return rows


def _streamed(parts: tuple[PartSize, ...], work: Pool, name: str) -> list[Holder]:
    always = sum(part.always for part in parts)
    return [
        Holder(name=_("small layers of {parts}").format(parts=name), bytes=Bytes(always), pool=work),
        Holder(
            name=_("blocks on the way from disk"),
            bytes=Bytes(_IN_FLIGHT * max(part.block for part in parts)),
            pool=work,
        ),
    ]


def _weights(part: PartSize, pool: Pool) -> Holder:
    return Holder(name=part.name, bytes=part.bytes, pool=pool)


def _working(name: str, traced: Bytes, pool: Pool) -> list[Holder]:
    return [
        Holder(name=name, bytes=traced, pool=pool),
        Holder(
            name=_("kernels and allocator (estimate)"), bytes=Bytes(traced * _KERNELS), pool=pool, exact=False
        ),
    ]
