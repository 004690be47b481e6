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
from caudal.core.units import Bytes
from caudal.models import tensor_file

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


def tensors_of(
    model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Every tensor of a run's state, by name."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not model:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return {name: value.detach() for name, value in tensors.items()}


def save(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
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
        with safe_open(part, framework="pt") as file:
            for name, value in tensors.items():
                assert torch.equal(file.get_tensor(name), value.cpu()), f"{name} was not written as it is"

    write_whole(path, lambda part: tensor_file.write(part, tensors, notes), check)
    for old in found(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    return CheckpointSaved(step=progress.step, path=str(path), bytes=path.stat().st_size, seconds=seconds)


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def load(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a checkpoint's state into the objects, tensor by tensor.

    Raises:
        BadModel: the checkpoint is of another model.
    """
    with safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
        names = list(file.keys())
        _fill(model, "model.", file)
        if average is not model:
            _fill(average, "average.", file)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name in names:
            if name.startswith("optimizer."):
                _kind, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = file.get_tensor(name)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return Progress(**json.loads(notes["progress"]))


def _fill(module: nn.Module, prefix: str, file: Any) -> None:
    try:
        module.load_state_dict({name: file.get_tensor(prefix + name) for name in module.state_dict()})
    except Exception as error:
        raise BadModel(
            _("The checkpoint does not belong to this model: {why}.").format(why=str(error).splitlines()[0]),
            _("Start a new run in another folder."),
        ) from None


def bytes_needed(model: nn.Module) -> Bytes:
    """Disk bytes of one checkpoint: weights, their average, and two numbers a weight for AdamW."""
    return Bytes(4 * sum(value.numel() * value.element_size() for value in model.state_dict().values()))
