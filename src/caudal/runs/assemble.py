"""Names become objects: the only place that knows tasks, models, data and training at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caudal.core.seeds import integer
from caudal.data.classes import Classes
from caudal.memory import allocator
from caudal.memory.levers.heap import Heap
from caudal.models import weights
from caudal.runs.spec import RunSpec, micro_batches
from caudal.tasks import TASKS
from caudal.tasks.base import MapTask, Task
from caudal.training.adamw import AdamW
from caudal.training.average import Average
from caudal.training.precision import Precision, choose
from caudal.training.stages import HasHead
from caudal.training.step import Parts, Prepare, Stepper, equal_parts


def class_names(classes: Classes) -> tuple[str, ...]:
    """Names of the classes in figures and tables: their mask values."""
    return tuple(str(value) for value in classes.values)


def make_map_task(spec: RunSpec, names: tuple[str, ...]) -> MapTask:
    """The task of a spec over maps, for classes of these names."""
    task: MapTask = TASKS.get(spec.task)(names)
    return task


def make_model(
    spec: RunSpec, inputs: int, outputs: int, device: str, config: Mapping[str, Any] | None = None
) -> nn.Module:
    """An untrained model on the device; its weights are a pure function of the seed.

    `config` are keys that the data decide; those of the spec go before.
    """
    torch.manual_seed(integer(spec.seed, "weights"))
    model = weights.build(spec.model.name, inputs, outputs, {**(config or {}), **spec.model.config})
    limit_threads(model, device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def limit_threads(model: nn.Module, device: str) -> None:
    """Let this process compute with no more threads than are worth it for a model, if it says so."""
    most = getattr(model, "threads_worth", None)
    if most is not None and device == "cpu":
        torch.set_num_threads(min(most, torch.get_num_threads()))


def choose_precision(model: nn.Module, device: str, asked: str, ragged: bool) -> Precision:
    """What a model computes in: as asked, or what is fast for it and for samples of any length (`ragged`)."""
    return choose(device, asked, ragged or bool(getattr(model, "step_by_step", False)))


def make_thrifty(model: nn.Module, heap: int, recompute: int) -> None:
    """Set this process's allocator and a model to positions of the levers `heap` and `checkpointing`.

    Whatever they stood at before: a probe goes through them in both directions.
    """
    if heap == Heap.GIVEN_BACK:
        allocator.give_back_at_once()
    else:
        allocator.settle()
    if recompute or hasattr(model, "recompute"):
        model.recompute = recompute  # type: ignore[assignment]


def make_stepper(
    spec: RunSpec,
    task: Task,
    model: nn.Module,
    prepare: Prepare,
    parts: Parts | None,
    precision: Precision,
    micro_batch: int,
    elsewhere: Path | None = None,
) -> tuple[Stepper, Average]:
    """All that a training step needs, and the averaged weights beside it; see `AdamW` for `elsewhere`."""
    lever, settings = micro_batches(spec), spec.training
    body = list(model.body_parameters()) if isinstance(model, HasHead) and settings.body_rate < 1 else []
    stepper = Stepper(
        model=model,
        task=task,
        optimizer=AdamW(
            model.parameters(),
            settings.learning_rate,
            settings.weight_decay,
            slower=body,
            slower_rate=settings.body_rate,
            elsewhere=elsewhere,
        ),
        scaler=precision.scaler(),
        precision=precision,
        prepare=prepare,
        parts=parts or equal_parts,
        micro_batch=micro_batch,
        clip=settings.clip,
        smaller=[size for size in lever.positions() if lever.is_exact(size)],
    )
    return stepper, Average(model, settings.average)


def probabilities_of(card: weights.ModelCard) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns a stored model's scores into probabilities."""
    made = TASKS.get(card.task)
    task: Task = made() if card.task == "anomaly" else made(tuple(map(str, range(card.outputs))))
    return task.probabilities
