"""The doctor's view of the machine around the memory: system, processors, disk and libraries."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from pathlib import Path

from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.runs.doctor.fact import Fact, fact
from caudal.runs.machine import processors

_SMALL_DISK = Bytes(2 * 1024 * MIB)
_LIBRARIES = ("torch", "numpy", "rasterio", "imagecodecs", "simplejpeg", "safetensors")


def machine() -> list[Fact]:
    """System and processors."""
    return [
        Fact(name=_("system"), value=f"{platform.system()} {platform.release()} ({platform.machine()})"),
        Fact(name=_("processors"), value=f"{processors()} / {os.cpu_count()}"),
    ]


def disk() -> list[Fact]:
    """Room for checkpoints and maps in the current folder."""
    free = Bytes(shutil.disk_usage(Path.cwd()).free)
    return [
        fact(
            _("free disk here"),
            free,
            fault=free < _SMALL_DISK,
            mend=_("Less than 2 GiB are free here: checkpoints and maps may not fit."),
        )
    ]


def software() -> list[Fact]:
    """The libraries that everything else stands on."""
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
