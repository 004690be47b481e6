"""A pipeline that is loaded as its plan says and makes one picture after another.

Parts come in the order in which they work, each straight to its final place and type. Text encoders leave
when the plan says so and come back for a new prompt; then nothing else is loaded. One way of offloading is in
force, chosen when the networks come. Not safe for several threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import torch

from caudal.core.errors import BadModel, OutOfMemory
from caudal.core.messages import _
from caudal.core.units import MIB
from caudal.inference.generation.cache import TensorCache
from caudal.inference.generation.decode import decode, set_way
from caudal.inference.generation.denoise import Steps, denoise
from caudal.inference.generation.identity import Identity, identity
from caudal.inference.generation.prompts import check_length, encode
from caudal.inference.generation.streamed import Streamed
from caudal.memory import allocator
from caudal.models.generation.layout import ModelFolder
from caudal.models.generation.libraries import need
from caudal.models.generation.part import FP8, PRECISIONS, Part, open_part, projection_of
from caudal.runs.generation.forecast import Forecast, rehearse
from caudal.runs.generation.plan import GenerationPlan
from caudal.runs.generation.schedules import check_steps, schedule, schedule_called, tokenizer
from caudal.tasks.generation.faces import Picture
from caudal.tasks.generation.request import GenerationRequest
from caudal.tasks.generation.styles import styled

_CACHE_BYTES = 16 * MIB  # a prompt of SDXL takes 0.7 MiB in 16 bits
_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Sitting:
    """What pictures are made of besides words: faces as numbers, and the pictures that guide.

    `guides` are the picture of keypoints and then one for each further ControlNet, all of the plan's size.
    `masks_FHW` says where each face may show, `region_HW` where the face ControlNet counts; 0 to 1.
    `warnings` are what must be said of the pictures that were given.
    """

    faces_FE: np.ndarray[Any, Any]
    guides: tuple[Picture, ...]
    masks_FHW: np.ndarray[Any, Any] | None = None
    region_HW: np.ndarray[Any, Any] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A picture and the seed that it came from."""

    seed: int
    x_HWC: Picture


@dataclass
class Times:
    """Seconds that were spent, by what for."""

    seconds: dict[str, float] = field(default_factory=dict)

    def spend(self, what: str, began: float) -> None:
        """Add the time since `began`."""
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began


class Session:
    """Use it in a `with`; leaving it gives every weight back."""

    def __init__(self, folder: ModelFolder, plan: GenerationPlan) -> None:
        """Open all parts and check their tensors; nothing is loaded yet.

        Raises:
            BadModel: a part is missing, broken, or is of another model.
            UsageError: a package is missing.
        """
        need("diffusers"), need("transformers"), need("accelerate")
        self.folder, self.plan = folder, plan
        self._comes_and_goes = plan.setup.offload == "disk" or plan.setup.storage == "fp8"
        if self._comes_and_goes:
            # Weights of many sizes come and go: in the heap their holes would add up.
            allocator.give_back_at_once()
        self._dtype = PRECISIONS[plan.precision]
        self._decoder_dtype = PRECISIONS[plan.decoder_precision]
        self._parts: dict[str, Part] = {name: open_part(name, folder) for name in folder.parts()}
        self._tokenizers = [
            tokenizer(folder, name, self._parts[encoder].module.config.max_position_embeddings)
            for name, encoder in zip(("tokenizer", "tokenizer_2"), _ENCODERS, strict=True)
        ]
        self._scheduler_config, self._pipeline = schedule(folder), None
        self._streamed: Streamed | None = None
        self._order: dict[int, int] = {}
        self.forecast: Forecast | None = None
        self._core_is_here = self._encoders_are_here = False
        self.prompts, self.faces = TensorCache(_CACHE_BYTES), TensorCache(_CACHE_BYTES)
        self.times = Times()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def check(self, request: GenerationRequest) -> None:
        """Refuse what the networks would cut or ignore.

        Raises:
            BadModel: the model's schedule cannot be used.
            UsageError: a prompt that is too long, a style that is not there, steps that cannot be made.
        """
        check_steps(schedule_called(request.scheduler, self._scheduler_config), request.steps)
        prompt, negative = styled(request.style, request.prompt, request.negative)
        check_length(prompt, self._tokenizers)
        check_length(negative, self._tokenizers, _("negative prompt"))

    def make(
        self,
        request: GenerationRequest,
        sitting: Sitting,
        tick: Callable[[int, int], None] = lambda _done, _total: None,
        stop: Callable[[], bool] = lambda: False,
        foretell: Callable[[Forecast], None] = lambda _told: None,
    ) -> Iterator[Made]:
        """Pictures with seeds `request.seed` and up, one after the other as they are finished.

        `tick` hears of steps, of all pictures together; `stop` is asked after each. With weights on disk,
        `foretell` hears before the first step what one will take; once in a session.

        Raises:
            Interrupted: `stop` said yes.
            UsageError: as `check`.
        """
        self.check(request)
        text = self._encoded(request)
        self._bring_core()
        if self._streamed is not None and self.forecast is None:
            began = time.perf_counter()
            parts = [self._parts[name] for name in ("identity", *self.folder.controls, "unet")]
            with _memory_said():
                self.forecast = rehearse(parts, self._streamed, self.plan, stop)
            self.times.spend("rehearsal", began)
            foretell(self.forecast)
        faces = self._identity(sitting, request)
        pipeline = self._pipeline
        assert pipeline is not None
        pipeline.scheduler = schedule_called(request.scheduler, self._scheduler_config)
        seeds = range(request.seed, request.seed + request.count)
        rounds = [seeds[i : i + self.plan.pictures] for i in range(0, len(seeds), self.plan.pictures)]
        strengths = [request.identity_strength]
        strengths += [request.control_strengths.get(kind, 0.4) for kind in self.folder.controls]
        for number, some in enumerate(rounds):
            began = time.perf_counter()
            with _memory_said():
                latents = denoise(
                    pipeline,
                    text,
                    faces,
                    [_as_control(guide) for guide in sitting.guides],
                    Steps(
                        width=self.plan.width,
                        height=self.plan.height,
                        steps=request.steps,
                        guidance=request.guidance,
                        seeds=list(some),
                        adapter_strength=request.adapter_strength,
                        control_strengths=strengths,
                        identity_end=request.identity_end,
                    ),
                    sitting.masks_FHW,
                    sitting.region_HW,
                    tick=lambda done, total, past=number: tick(past * total + done, len(rounds) * total),
                    stop=stop,
                )
            self.times.spend("steps", began)
            began = time.perf_counter()
            with _memory_said():
                pictures = self._decoded(latents)
            self.times.spend("decoding", began)
            for seed, x_HWC in zip(some, pictures, strict=True):
                yield Made(seed, x_HWC)

    def close(self) -> None:
        """Give everything back."""
        self._send_core_away()
        self._send_encoders_away()
        for part in self._parts.values():
            part.close()
        if self._comes_and_goes:
            allocator.settle()

    def held(self) -> dict[str, dict[str, int]]:
        """Bytes of weights by device (`cpu`, `cuda`) and part, and of what is kept of prompts and faces.

        May be asked while another thread makes pictures.
        """
        found: dict[str, dict[str, int]] = {"cpu": {}}
        for part in list(self._parts.values()):
            for tensor in part.tensors().values():
                if not tensor.is_meta:
                    row = found.setdefault(tensor.device.type, {})
                    row[part.name] = row.get(part.name, 0) + tensor.untyped_storage().nbytes()
        found["cpu"][_("prompts and faces")] = self.prompts.bytes + self.faces.bytes
        return found

    @property
    def streamed_bytes(self) -> int:
        """Weights that each step reads from disk."""
        return 0 if self._streamed is None else self._streamed.streamed_bytes

    # Encoding.

    def _encoded(self, request: GenerationRequest) -> tuple[torch.Tensor, ...]:
        prompt, negative = styled(request.style, request.prompt, request.negative)
        key = (prompt, negative, request.guided)

        def compute() -> tuple[torch.Tensor, ...]:
            began = time.perf_counter()
            if self.plan.setup.encoders == "freed":
                self._send_core_away()
            self._bring_encoders()
            encoder, encoder_2 = (self._parts[name].module for name in _ENCODERS)
            tokens, tokens_2 = self._tokenizers
            words = _pipeline_class()(
                vae=None, unet=None, controlnet=None, scheduler=None, add_watermarker=False,
                text_encoder=encoder, text_encoder_2=encoder_2, tokenizer=tokens, tokenizer_2=tokens_2,
            )  # fmt: skip
            values = encode(words, prompt, negative, request.guided)
            if self.plan.setup.encoders == "freed":
                self._send_encoders_away()
            self.times.spend("encoding", began)
            return values

        return self.prompts.get(key, compute)

    def _bring_encoders(self) -> None:
        if self._encoders_are_here:
            return
        parts = [self._parts[name] for name in _ENCODERS]
        if self.plan.setup.offload == "disk":
            self._encoder_stream = Streamed(parts, self.plan.device, self._dtype)
        else:
            for part in parts:
                part.load(self.plan.device, self._dtype)
        self._encoders_are_here = True

    def _send_encoders_away(self) -> None:
        if not self._encoders_are_here:
            return
        if self.plan.setup.offload == "disk":
            self._encoder_stream.close()
        for name in _ENCODERS:
            self._parts[name].empty()
        self._encoders_are_here = False
        allocator.trim()

    # The networks of every step, and the decoder.

    def _bring_core(self) -> None:
        if self._core_is_here:
            return
        began = time.perf_counter()
        setup, device = self.plan.setup, self.plan.device
        names = ("unet", "identity", *self.folder.controls)
        parts = [self._parts[name] for name in names]
        if setup.offload == "disk":
            self._streamed = Streamed(parts, device, self._dtype, int(setup.resident), self._order)
        else:
            first = "cpu" if setup.offload in ("group", "group lean", "model") else device
            for part in parts:
                part.load(first, self._dtype, fp8=setup.storage == "fp8")
        at_home = "cpu" if setup.offload == "model" else device
        vae = self._parts["vae"].load(at_home, self._decoder_dtype)
        kind, _space, tile = setup.decoding.partition(" ")
        set_way(vae, kind, int(tile or 0))  # type: ignore[arg-type]
        controlnets = [part.module for part in parts[1:]]
        self._pipeline = pipeline = _pipeline_class()(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=parts[0].module,
            controlnet=controlnets if len(controlnets) > 1 else controlnets[0],
            scheduler=schedule_called("default", self._scheduler_config),
            force_zeros_for_empty_prompt=False,
            add_watermarker=False,
        )
        pipeline.where = torch.device(device)
        pipeline.set_progress_bar_config(disable=True)
        if setup.storage == "fp8":
            for part in parts:
                part.module.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=self._dtype)
        if setup.offload in ("group", "group lean"):
            for part in parts:
                _offload_groups(part.module, device, lean=setup.offload == "group lean")
        if setup.offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        self._core_is_here = True
        self.times.spend("loading", began)

    def _send_core_away(self) -> None:
        if not self._core_is_here:
            return
        if self._streamed is not None:
            self._order = self._streamed.order
            self._streamed.close()
        if self._pipeline is not None and self.plan.setup.offload == "model":
            self._pipeline.remove_all_hooks()
        self._streamed = self._pipeline = None
        names = ("unet", "identity", *self.folder.controls, "vae")
        for name in names:
            old = self._parts.pop(name)
            old.close()
            # A new one, without the hooks that diffusers leaves behind.
            self._parts[name] = open_part(name, self.folder)
            del old
        self._core_is_here = False
        allocator.trim()
        if self.plan.device == "cuda":
            torch.cuda.empty_cache()

    def _identity(self, sitting: Sitting, request: GenerationRequest) -> Identity:
        device = torch.device(self.plan.device)
        within = self._parts["unet"].module.encoder_hid_proj.image_projection_layers[0]
        wanted = within.proj_in.in_features
        if sitting.faces_FE.shape[1] != wanted:
            raise BadModel(
                _("The face engine gives {given} numbers and the adapter was trained on {wanted}.").format(
                    given=sitting.faces_FE.shape[1], wanted=wanted
                ),
                _("Use the engine that the adapter was trained with (--engine, --faces)."),
            )
        key = (sitting.faces_FE.tobytes(), request.guided)

        def compute() -> tuple[torch.Tensor, ...]:
            with self._projection(within) as projection:
                found = identity(
                    projection, torch.from_numpy(sitting.faces_FE), request.guided, self._dtype, device
                )
            return found.embeds_BF1E, found.tokens_BTC

        embeds, tokens = self.faces.get(key, compute)
        return Identity(embeds.to(device), tokens.to(device))

    @contextmanager
    def _projection(self, within: Any) -> Iterator[Any]:
        """The projection of faces, with its weights where they compute when it is called."""
        if self.plan.setup.offload in ("none", "disk"):
            yield within
            return
        # The hooks of offloading know whole steps: called alone, this part of a UNet would find its weights
        # on the host.
        alone = projection_of(self._parts["unet"])
        blocks = Streamed([alone], self.plan.device, self._dtype)
        try:
            yield alone.module
        finally:
            blocks.close()

    def _decoded(self, latents: torch.Tensor) -> list[Picture]:
        pictures = decode(
            self._parts["vae"].module, latents, torch.device(self.plan.device), self._decoder_dtype
        )
        if self._pipeline is not None and self.plan.setup.offload == "model":
            self._pipeline.maybe_free_model_hooks()  # else the decoder stays while the next steps are made
        return pictures


@contextmanager
def _memory_said() -> Iterator[None]:
    """A device that is full is an error that a user can act upon."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            _("The device ran out of memory in spite of the plan: {why}.").format(
                why=str(error).split(".")[0][:160]
            ),
            _("Give a smaller --vram, so that the plan takes less."),
        ) from None


def _pipeline_class() -> Any:
    need("diffusers")
    return import_module("caudal.inference.generation.pipeline").FacePipeline


def _offload_groups(module: Any, device: str, lean: bool) -> None:
    streams = device == "cuda"
    module.enable_group_offload(
        onload_device=torch.device(device),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=streams,
        record_stream=streams,
        low_cpu_mem_usage=lean and streams,
    )


def _as_control(x_HWC: Picture) -> Any:
    from PIL import Image

    return Image.fromarray(x_HWC)


def warnings_of(plan: GenerationPlan, made: Sequence[str]) -> tuple[str, ...]:
    """What must be said of a plan and of what was given, each once."""
    return tuple(dict.fromkeys([*plan.warnings, *made]))
