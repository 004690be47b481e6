"""Checkpoints: one safetensors file each, whole or not there, with all that a resume needs.

Temporary file, flush, verify by reading it back, rename, flush the folder. The newest two are kept.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from caudal.core.errors import BadModel
from caudal.core.events import CheckpointSaved
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.models import tensor_file
from caudal.training.adamw import AdamW

KEEP = 2
_NAME = re.compile(r"step-([0-9]{8})\.safetensors")


@dataclass
class Progress:
    """Where a run stands. `step` steps are done; `best` is the best score so far, `waited` how many
    scores ago; `history` holds one row a score; `scaler` the gradient scaler's numbers.
    """  # fmt: skip

    step: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)


def tensors_of(model: nn.Module, average: nn.Module, optimizer: AdamW) -> dict[str, torch.Tensor]:
    """Every tensor of a run's state, by name."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not model:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.tensors().items()}
    return {name: value.detach() for name, value in tensors.items()}


def save(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimizer: AdamW,
) -> CheckpointSaved:
    """Write the checkpoint of `progress.step` and remove old ones.

    Raises:
        DiskFull: no space was left; the earlier checkpoints are untouched.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{progress.step:08d}.safetensors"
    tensors = tensors_of(model, average, optimizer)
    notes = {"progress": json.dumps(asdict(progress))}

    def check(part: Path) -> None:
        wrong = tensor_file.differing(part, tensors)
        assert wrong is None, f"{wrong} was not written as it is"

    write_whole(path, lambda part: tensor_file.write(part, tensors, notes), check)
    for old in found(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    return CheckpointSaved(step=progress.step, path=str(path), bytes=path.stat().st_size, seconds=seconds)


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def load(path: Path, model: nn.Module, average: nn.Module, optimizer: AdamW) -> Progress:
    """Put a checkpoint's state into the objects, tensor by tensor.

    Raises:
        BadModel: the checkpoint is of another model.
    """
    with safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
        _fill(model.state_dict(), "model.", file)
        if average is not model:
            _fill(average.state_dict(), "average.", file)
        _fill(optimizer.tensors(), "optimizer.", file)
    return Progress(**json.loads(notes["progress"]))


def _fill(tensors: dict[str, torch.Tensor], prefix: str, file: Any) -> None:
    # Copied into what is there, never put in its place: the optimizer walks through weights and state side
    # by side in memory, and a tensor that is laid out otherwise would be taken for other elements'.
    try:
        with torch.no_grad():
            for name, value in tensors.items():
                value.copy_(file.get_tensor(prefix + name).reshape(value.shape))
    except Exception as error:
        raise BadModel(
            _("The checkpoint does not belong to this model: {why}.").format(why=str(error).splitlines()[0]),
            _("Start a new run in another folder."),
        ) from None
