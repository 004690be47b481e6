"""The doctor's view of GPUs: what torch sees, whether a kernel runs, and who holds the card's memory."""

from __future__ import annotations

from caudal.core.messages import _
from caudal.memory import vram
from caudal.runs.doctor.fact import Fact, fact

_BUSY_SHARE = 0.5


def examine() -> list[Fact]:
    """One GPU after the other, or why there is none."""
    import torch

    found = vram.devices()
    if not found:
        built = torch.version.cuda
        mend = (
            _("This torch was built without CUDA: fine for a CPU; else install torch for your GPU.")
            if built is None
            else _(
                "torch was built for CUDA {built} but sees no GPU: check the driver with nvidia-smi."
            ).format(built=built)
        )
        return [fact("GPU", _("none"), fault=True, mend=mend), _precision("cpu")]
    facts = [Fact(name=f"GPU {d.index}", value=f"{d.name}, {d.free} / {d.total}") for d in found]
    value = float((torch.ones(8, device="cuda") * 2).sum())  # a kernel really runs, or this raises
    facts.append(Fact(name=_("a kernel ran"), value=str(value == 16.0)))
    for device in found:
        facts += holders(device.index, vram.read(torch.cuda, vram.nvml(), device.index))
    facts.append(fact(_("used by all processes (NVML)"), vram.used_by_all()))
    return [*facts, _precision("cuda")]


def holders(index: int, reading: vram.Reading) -> list[Fact]:
    """Who holds the memory of one GPU."""
    return [
        fact(
            _("GPU {index}, this process").format(index=index),
            _("{allocated} in tensors, {reserved} reserved").format(
                allocated=reading.allocated, reserved=reading.reserved
            ),
        ),
        fact(
            _("GPU {index}, other processes").format(index=index),
            reading.others,
            fault=(reading.others or 0) > _BUSY_SHARE * reading.total,
            mend=_("Others hold most of this card: end them, or choose another with CUDA_VISIBLE_DEVICES."),
        ),
    ]


def _precision(device: str) -> Fact:
    from caudal.training import precision

    return Fact(name=_("precision"), value=precision.choose(device, "auto").name)
