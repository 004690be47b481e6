"""A trained model on disk: a folder with `model.safetensors` and `model.json`. Never a pickle.

A bare `.pt` state dict is read too, with `weights_only`: its kind is found from its keys. Such a file
says nothing of bands, classes or normalization, and the user is told so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import nn

from caudal.core.config import Frozen
from caudal.core.errors import BadModel
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.models import MODELS, tensor_file
from caudal.models.tensor_files import read_archive
from caudal.models.unfilled import unfilled

WEIGHTS = "model.safetensors"
CARD = "model.json"
_OF_BARE_FILES = {
    "unet": "segmentation",
    "autoencoder": "anomaly",
    "patch_memory": "anomaly",
    "rx": "anomaly",
}
"""Kinds that weights alone say enough of to be used, and their tasks."""


class ModelCard(Frozen):
    """All that must be known to use the weights.

    `normalization`, `classes`, `inputs`, `threshold` and `memory` are the records of the rooms that own them,
    as plain values. `memory` holds what inference was measured to take. `metrics` are those of the held-out
    part.
    """

    format: int = 1
    task: str
    architecture: str
    config: dict[str, Any]
    bands: int
    outputs: int
    band_names: tuple[str, ...] = ()
    normalization: dict[str, Any] | None = None
    classes: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    threshold: dict[str, Any] | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)


def build(architecture: str, bands: int, outputs: int, config: dict[str, Any]) -> nn.Module:
    """An untrained model by name.

    Raises:
        UsageError: no such architecture, or a wrong key in `config`.
    """
    factory = MODELS.get(architecture)
    model: nn.Module = factory(bands, outputs, factory.Config.make(config, f"model.{architecture}"))
    return model


def save(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write the folder; both files appear whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, lambda part: tensor_file.write(part, model.state_dict()))
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / CARD, lambda part: part.write_text(text, encoding="utf-8"))


def load(path: Path, dtype: torch.dtype | None = None) -> tuple[nn.Module, ModelCard]:
    """A model in evaluation mode and its card, from a model folder or a bare `.pt` state dict.

    The model takes its weights as they lie in the page cache, mapped and not copied; with `dtype`, those of
    another floating-point type are copied to it one by one. So loading holds no more than what has to change.

    Raises:
        BadModel: nothing there, broken, an unknown kind, or a pickle that wants to run code.
    """
    if path.is_dir():
        return _load_folder(path, dtype)
    if not path.is_file():
        raise BadModel(
            _("{path} is not there.").format(path=path), _("Give a run folder, a model folder or a .pt file.")
        )
    state = _read_bare(path)
    return _model_of(state, path, dtype)


def _load_folder(folder: Path, dtype: torch.dtype | None) -> tuple[nn.Module, ModelCard]:
    try:
        card = ModelCard.make(json.loads((folder / CARD).read_text()), str(folder / CARD))
        with unfilled():  # no memory, and no random numbers for it
            model = build(card.architecture, card.bands, card.outputs, card.config)
        state = {}
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                state[name] = _as(file.get_tensor(name), dtype)
        model.load_state_dict(state, assign=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise BadModel(
            _("{folder} holds no model that can be read: {why}.").format(
                folder=folder, why=str(error).splitlines()[0]
            ),
            _("A model folder holds {card} and {weights}.").format(card=CARD, weights=WEIGHTS),
        ) from None
    return model.eval(), card


def _read_bare(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = read_archive(path)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise BadModel(
            _("{path} is no file of weights: {why}.").format(path=path, why=str(error).splitlines()[0]),
            _("Save it with torch.save(model.state_dict(), …)."),
        ) from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BadModel(
            _("{path} is no state dict.").format(path=path),
            _("Save it with torch.save(model.state_dict(), …)."),
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _model_of(
    state: dict[str, torch.Tensor], path: Path, dtype: torch.dtype | None
) -> tuple[nn.Module, ModelCard]:
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for name, task in _OF_BARE_FILES.items():
        with unfilled():
            model = MODELS.get(name).from_shapes(shapes)
        if model is not None:
            model.load_state_dict({key: _as(value, dtype) for key, value in state.items()}, assign=True)
            card = ModelCard(
                task=task,
                architecture=name,
                config=model.config.model_dump(),
                bands=model.bands,
                outputs=model.classes,
            )
            return model.eval(), card
    raise BadModel(
        _("{path} holds weights of no model that is known here (first key: {key}).").format(
            path=path, key=next(iter(shapes), "-")
        ),
        _("Models are: {names}.").format(names=", ".join(MODELS.names())),
    )


def _as(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value
