"""Names become objects: the only place that knows tasks, models, data and training at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from caudal.core.labels import IGNORE
from caudal.core.seeds import integer
from caudal.data.augment import augment
from caudal.data.classes import Classes
from caudal.data.normalize import Normalization, normalize
from caudal.data.stream import Batch
from caudal.memory import allocator
from caudal.memory.levers.thrift import Thrift
from caudal.models import weights
from caudal.runs.spec import RunSpec, micro_batches
from caudal.tasks import TASKS
from caudal.tasks.base import Task
from caudal.training.adamw import AdamW
from caudal.training.average import Average
from caudal.training.precision import Precision
from caudal.training.step import Prepare, Stepper


def class_names(classes: Classes) -> tuple[str, ...]:
    """Names of the classes in figures and tables: their mask values."""
    return tuple(str(value) for value in classes.values)


def make_task(spec: RunSpec, names: tuple[str, ...]) -> Task:
    """The task of a spec for classes of these names."""
    task: Task = TASKS.get(spec.task)(names)
    return task


def make_model(spec: RunSpec, bands: int, outputs: int, device: str) -> nn.Module:
    """An untrained model on the device; its weights are a pure function of the seed."""
    torch.manual_seed(integer(spec.seed, "weights"))
    model = weights.build(spec.model.name, bands, outputs, spec.model.config)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make_thrifty(model: nn.Module, thrift: int) -> None:
    """Set a model and this process's allocator to a position of the lever `thrift`."""
    if thrift >= Thrift.GIVE_BACK:
        allocator.give_back_at_once()
    if thrift >= Thrift.COMPUTE_AGAIN:
        model.recompute = model.recompute_levels


def make_prepare(spec: RunSpec, normalization: Normalization, device: str) -> Prepare:
    """From a batch in files' units to the model's input: copy, normalize, augment."""
    tables = normalization.tables(device)

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x_BHWC = torch.from_numpy(batch.x_BHWC[part]).to(device, non_blocking=True)
        y_BHW = torch.from_numpy(batch.y_BHW[part]).to(device, non_blocking=True)
        layout_B = torch.from_numpy(batch.layout_B[part]).to(device)
        x_BCHW = normalize(x_BHWC, layout_B, tables)
        return augment(x_BCHW, y_BHW, spec.augmentation, spec.seed, batch.sample_B[part], IGNORE)

    return prepare


def make_stepper(
    spec: RunSpec,
    task: Task,
    model: nn.Module,
    normalization: Normalization,
    precision: Precision,
    micro_batch: int,
) -> tuple[Stepper, Average]:
    """All that a training step needs, and the averaged weights beside it."""
    lever = micro_batches(spec)
    stepper = Stepper(
        model=model,
        task=task,
        optimizer=AdamW(model.parameters(), spec.training.learning_rate, spec.training.weight_decay),
        scaler=precision.scaler(),
        precision=precision,
        prepare=make_prepare(spec, normalization, precision.device),
        micro_batch=micro_batch,
        clip=spec.training.clip,
        smaller=[size for size in lever.positions() if lever.is_exact(size)],
    )
    return stepper, Average(model, spec.training.average)


def probabilities_of(card: weights.ModelCard) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns a stored model's scores into probabilities."""
    names = tuple(map(str, range(card.outputs)))
    task: Task = TASKS.get(card.task)(names)
    return task.probabilities
