"""What this machine has, what each meter sees, and what to mend."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from pathlib import Path

from caudal.core.config import Frozen
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.memory import cgroup, limits, meters, vram
from caudal.runs.machine import processors, ram_budget

_SMALL_SHM = Bytes(256 * MIB)
_SMALL_DISK = Bytes(2 * 1024 * MIB)
_LIBRARIES = ("torch", "numpy", "rasterio", "imagecodecs", "simplejpeg", "safetensors")


class Fact(Frozen):
    """One thing that was looked at; `mend` is empty where nothing is wrong."""

    name: str
    value: str
    mend: str = ""


def examine() -> list[Fact]:
    """Look at everything; takes as long as importing torch."""
    return [*_machine(), *_memory(), *_device(), *_disk(), *_software()]


def _unseen(value: object) -> str:
    return _("cannot be seen") if value is None else str(value)


def _machine() -> list[Fact]:
    return [
        Fact(name=_("system"), value=f"{platform.system()} {platform.release()} ({platform.machine()})"),
        Fact(name=_("processors"), value=f"{processors()} / {os.cpu_count()}"),
    ]


def _memory() -> list[Fact]:
    facts = [
        Fact(name=_("limit: {name}").format(name=limit.name), value=str(limit.bytes or _("none")))
        for limit in limits.ram_limits()
    ]
    group, stall = cgroup.read(), meters.pressure()
    facts.append(Fact(name=_("available memory"), value=str(limits.available_ram())))
    facts.append(Fact(name=_("default ram budget"), value=str(ram_budget(None))))
    facts.append(Fact(name=_("charged to this process"), value=str(meters.charged_bytes())))
    facts.append(Fact(name=_("kills for memory in this group"), value=_unseen(group.oom_kills)))
    facts.append(
        Fact(
            name=_("memory pressure, last 10 s"),
            value=_unseen(None if stall is None else f"{stall.some:.1f} % / {stall.full:.1f} %"),
        )
    )
    peak = meters.PeakMeter()
    facts.append(
        Fact(
            name=_("exact peaks"),
            value=_("yes") if peak.resettable else _("no"),
            mend=""
            if peak.resettable
            else _("/proc/self/clear_refs is not writable here: peaks count from the start of the process."),
        )
    )
    shared = limits.shared_memory_bytes()
    small = shared is not None and shared < _SMALL_SHM
    facts.append(
        Fact(
            name="/dev/shm",
            value=_unseen(shared),
            mend=_("It is small; Caudal does not use it, other loaders with workers would die of it.")
            if small
            else "",
        )
    )
    return facts


def _device() -> list[Fact]:
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
        return [Fact(name="GPU", value=_("none"), mend=mend), _precision("cpu")]
    facts = [Fact(name=f"GPU {d.index}", value=f"{d.name}, {d.free} / {d.total}") for d in found]
    value = float((torch.ones(8, device="cuda") * 2).sum())  # a kernel really runs, or this raises
    facts.append(Fact(name=_("a kernel ran"), value=str(value == 16.0)))
    facts.append(Fact(name=_("used by all processes (NVML)"), value=_unseen(vram.used_by_all())))
    return [*facts, _precision("cuda")]


def _precision(device: str) -> Fact:
    from caudal.training import precision

    return Fact(name=_("precision"), value=precision.choose(device, "auto").name)


def _disk() -> list[Fact]:
    free = Bytes(shutil.disk_usage(Path.cwd()).free)
    mend = _("Less than 2 GiB are free here: checkpoints and maps may not fit.") if free < _SMALL_DISK else ""
    return [Fact(name=_("free disk here"), value=str(free), mend=mend)]


def _software() -> list[Fact]:
    facts = []
    for name in _LIBRARIES:
        try:
            version = getattr(importlib.import_module(name), "__version__", "?")
            facts.append(Fact(name=name, value=str(version)))
        except ImportError as error:
            facts.append(
                Fact(name=name, value=str(error), mend=_("Install it: pip install {name}").format(name=name))
            )
    return facts
