"""What a generation is promised before anything is loaded: device, type, levers, bytes."""

from __future__ import annotations

import sys

from caudal.core.config import Frozen
from caudal.core.errors import DeviceMissing
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.memory import vram as vram_meter
from caudal.memory.generation.planner import moved_bytes, named, plan_generation
from caudal.memory.generation.setups import Setup
from caudal.memory.generation.sizes import PipelineSize, Place
from caudal.memory.meters import charged_bytes
from caudal.memory.plan import MemoryPlan
from caudal.runs.machine import ram_budget
from caudal.tasks.generation.faces import DETECTION_PX, detection_bytes
from caudal.tasks.generation.request import GenerationRequest

DEFAULT_PX = 1024
# With torch, diffusers and transformers imported, one picture made and its faces found; measured on Linux.
LIBRARIES = Bytes(560 * MIB)
PUBLISHED_FACES = 280 * MIB
"""SCRFD-10G and ArcFace with a ResNet100, as published."""
# A CUDA context with the libraries that SDXL uses, from what others published; not measured by us.
DRIVER_RAM, DRIVER_VRAM = Bytes(1024 * MIB), Bytes(600 * MIB)


class GenerationPlan(Frozen):
    """Every open choice made.

    `pictures` go through at once; `shrunk` pixels on a side are one of the latent picture; `moved` bytes
    cross a bus, or come from disk, in every step.
    """

    device: str
    precision: str
    decoder_precision: str
    width: int
    height: int
    shrunk: int
    pictures: int
    guided: bool
    steps: int
    count: int
    setup: Setup
    size: PipelineSize
    memory: MemoryPlan
    moved: Bytes
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"generation · {self.width}×{self.height} · {self.precision} on {self.device}"]
        lines += [f"  {h.name:36s} {h.bytes!s:>10s} {h.pool}" for h in self.memory.holders]
        for pool, budget in (("ram", self.memory.ram), ("vram", self.memory.vram)):
            if budget:
                lines.append(f"  predicted {self.memory.predicted(pool)} of {budget} {pool}")  # type: ignore[arg-type]
        return "\n".join([*lines, f"  {named(self.setup)}"])


def make_plan(
    request: GenerationRequest,
    blueprint: object | None = None,
    *,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str = "auto",
    imagined: bool = False,
    faces: int = PUBLISHED_FACES,
    detecting: int = detection_bytes(DETECTION_PX[0]),
    exact: bool = False,
    beside: Bytes | None = None,
    free_vram: Bytes | None = None,
) -> GenerationPlan:
    """Plan pictures of a blueprint (see `trace`); without one, of the published sizes.

    `exact` pulls no lever that changes numbers. `faces` are the bytes of the face engine's models, and
    `detecting` those that it takes to look. `imagined` plans for a GPU with `vram` where there is none, to
    know beforehand. `beside` is what the process holds beside the weights, faces' models included, and
    `free_vram` what the card has for them; without these both are measured now, when nothing is loaded.

    Raises:
        BadModel: a configuration that cannot be used.
        DeviceMissing: `device` is not here.
        DoesNotFit: nothing stays inside the budget.
        UsageError: a package is missing, or a budget that cannot be.
    """
    from caudal.models.generation.libraries import need

    need("diffusers"), need("transformers"), need("accelerate")
    from caudal.models.generation.part import PRECISIONS
    from caudal.runs.generation import trace

    warnings = []
    where = "cuda" if imagined and vram and device != "cpu" and not vram_meter.devices() else None
    if where:
        warnings.append(
            _("No GPU is here: this is a plan for one with {vram}.").format(vram=Bytes.parse(vram or 0))
        )
    where = where or vram_meter.choose(device)
    if where == "cpu" and device == "auto":
        warnings.append(_("No GPU can be used here: this runs on the CPU."))
    if where == "cpu" and vram:
        if device != "cpu":
            raise DeviceMissing(
                _("--vram names GPU memory, and no GPU can be used here."),
                _("Leave it out, or plan alone with `caudal plan generation`."),
            )
        warnings.append(_("--vram has no meaning on the CPU."))
    precision = _precision(request.precision, where)
    chosen = blueprint if isinstance(blueprint, trace.Blueprint) else trace.published()
    upcast = precision == "fp16" and bool(chosen.configs["vae"].get("force_upcast", True))
    decoder_precision = "fp32" if upcast else precision
    width, height = request.width or DEFAULT_PX, request.height or DEFAULT_PX
    pictures = min(request.batch, request.count)
    size = trace.pipeline_size(
        chosen, width, height, pictures, request.guided, PRECISIONS[precision], PRECISIONS[decoder_precision]
    )  # fmt: skip
    on_card = where == "cuda"
    room = Bytes.parse(vram) if vram and on_card else None
    if on_card and room is None:
        free = vram_meter.devices()[0].free if free_vram is None else free_vram
        room = Bytes(free * vram_meter.DEFAULT_SHARE)
    there = beside
    if there is None:
        there = charged_bytes() if "torch" in sys.modules and not imagined else Bytes(0)
    place = Place(
        device="cuda" if on_card else "cpu",
        libraries=Bytes(max(LIBRARIES, there - faces)),
        faces=Bytes(faces),
        detecting=Bytes(detecting),
        driver_ram=DRIVER_RAM if on_card else Bytes(0),
        driver_vram=DRIVER_VRAM if on_card else Bytes(0),
    )
    asked = Bytes.parse(ram) if ram is not None else None
    budget = asked if imagined and asked is not None else ram_budget(asked)
    memory, setup = plan_generation(size, place, budget, room, exact)
    return GenerationPlan(
        device=where,
        precision=precision,
        decoder_precision=decoder_precision,
        width=width,
        height=height,
        shrunk=2 ** (len(chosen.configs["vae"]["block_out_channels"]) - 1),
        pictures=pictures,
        guided=request.guided,
        steps=request.steps,
        count=request.count,
        setup=setup,
        size=size,
        memory=memory,
        moved=moved_bytes(setup, size),
        warnings=tuple(warnings),
    )


def _precision(asked: str, device: str) -> str:
    """The type of computing: 16 bits on a device, 32 on the host, where nothing is gained by fewer."""
    if asked != "auto":
        return asked
    if device == "cpu":
        return "fp32"
    import torch

    return "bf16" if not torch.cuda.is_available() or torch.cuda.is_bf16_supported() else "fp16"
