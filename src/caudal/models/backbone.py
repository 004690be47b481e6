"""Any image model of transformers as a classifier of any number of bands, with a head of ours.

Batch statistics are taken over groups and dropout is off, so that results do not depend on micro-batches.
Reading files is `pretrained`'s. Legend: B batch, K classes, C channel, H row, W column.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeGuard

import torch
from pydantic import Field
from torch import nn

from caudal.core.config import Frozen
from caudal.core.errors import BadModel, UsageError
from caudal.core.messages import _
from caudal.models import explained, pretrained
from caudal.models.norm import GroupedBatchNorm2d
from caudal.models.recompute import recomputed
from caudal.models.unfilled import is_unfilled


class BackboneConfig(Frozen):
    """Which model. `source`: a folder with safetensors, or a hub id; its weights are taken.

    Without it a model of `kind` (transformers' model type) with `options` set begins at random.
    `architecture` is the whole configuration, as it stands in a trained model's card: then nothing is read.
    `group`: samples over which batch statistics are taken.
    """

    source: str | None = None
    kind: str = "resnet"
    options: dict[str, Any] = Field(default_factory=dict)
    architecture: dict[str, Any] | None = None
    group: int = Field(4, ge=1)


class Backbone(nn.Module):
    """Scores of `outputs` classes for an image of `inputs` bands.

    Raises:
        BadModel: the source or the architecture is none, or its weights are not to be trusted.
        UsageError: no such kind or option, or transformers is not installed.
    """

    Config: ClassVar[type[BackboneConfig]] = BackboneConfig

    multiple_px = 1

    def __init__(self, inputs: int, outputs: int, config: BackboneConfig) -> None:
        super().__init__()
        self.bands, self.classes = inputs, outputs
        self.recompute = 0
        """How many of the `levels` compute their activations again instead of keeping them."""
        self.notes: list[str] = []
        """What a user must hear of how this model came to be."""
        architecture = config.architecture
        if architecture is None:
            architecture = (
                pretrained.architecture_of(config.source)
                if config.source
                else pretrained.architecture_named(config.kind, config.options)
            )
        channels = architecture.get("num_channels")
        if not isinstance(channels, int):
            raise BadModel(
                _("A model of kind “{kind}” does not say how many bands it takes.").format(
                    kind=architecture.get("model_type")
                ),
                _("Choose another backbone, such as resnet, convnext, vit or swin."),
            )
        takes_weights = config.architecture is None and config.source is not None
        if takes_weights and not is_unfilled():
            assert config.source is not None
            self.net, missing = pretrained.load(config.source, architecture, outputs)
            self._say_missing(missing)
            if channels != inputs:
                self._adapt(channels, inputs)
            self._new_head()
        else:
            self.net = pretrained.build({**architecture, "num_channels": inputs}, outputs)
            if config.architecture is None and not takes_weights:
                self.notes.append(
                    _("The backbone ({kind}) begins at random: no pretrained weights were given.").format(
                        kind=architecture["model_type"]
                    )
                )
        _group_statistics(self.net, config.group)
        self.config = config.model_copy(update={"architecture": {**architecture, "num_channels": inputs}})
        self._prepared = None
        if config.source and config.architecture is None:
            self._prepared = pretrained.optional_json(config.source, "preprocessor_config.json")
        takes = inspect.signature(self.net.forward).parameters
        self._extra = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        self._explained: str | None = None
        self.recompute_levels = len(self._levels())
        """The most that `recompute` can be."""

    @property
    def outputs(self) -> int:
        """Classes that are scored."""
        return self.classes

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation of each band, of values from 0 to 1, that the weights were trained with."""
        values = [(self._prepared or {}).get(key) for key in ("image_mean", "image_std")]
        if not all(isinstance(v, list) and len(v) == self.bands for v in values):
            return None
        mean, std = (tuple(float(x) for x in v) for v in values)  # type: ignore[union-attr]
        return mean, std

    @property
    def image_size(self) -> int | None:
        """Side in pixels that the weights were trained with; `None` where nothing says so."""
        prepared = self._prepared or {}
        for key in ("crop_size", "size"):
            value = prepared.get(key)
            if isinstance(value, dict):
                value = value.get("height", value.get("shortest_edge"))
            if isinstance(value, int):
                return value
        assert self.config.architecture is not None
        size = self.config.architecture.get("image_size")
        fixed = any("position_embedding" in name for name, _weight in self.net.named_parameters())
        return size if fixed and isinstance(size, int) else None

    @property
    def explained_layer(self) -> str:
        """The module whose output is the last map on which the scores depend as a map."""
        if self._explained is None:
            try:
                self._explained = self._last_map(self.image_size or 64)
            except UsageError:
                assert self.config.architecture is not None
                self._explained = self._last_map(self.config.architecture["image_size"])
        return self._explained

    def _last_map(self, side: int) -> str:
        weight = next(self.parameters())
        return explained.last_map(
            self, torch.zeros(1, self.bands, side, side, device=weight.device, dtype=weight.dtype)
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Scores `(B, outputs)` of `(B, bands, H, W)`.

        Raises:
            UsageError: the model takes images of another size alone.
        """
        thrifty = self.training and self.recompute and torch.is_grad_enabled()
        blocks = [b for level in self._levels()[: self.recompute] for b in level] if thrifty else []
        with recomputed(blocks), self._naming_its_size(x_BCHW.shape[-1]):
            scores_BK: torch.Tensor = self.net(pixel_values=x_BCHW, **self._extra).logits
        return scores_BK

    @contextmanager
    def _naming_its_size(self, side: int) -> Iterator[None]:
        """Say what a model that cannot take images of `side` px says in the words of its tensors."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            assert self.config.architecture is not None
            size, kind = (self.config.architecture.get(key) for key in ("image_size", "model_type"))
            of_shapes = isinstance(error, ValueError) or "match" in str(error) or "shape" in str(error)
            if size == side or not isinstance(size, int) or not of_shapes:
                raise
            raise UsageError(
                _("A backbone of kind “{kind}” for images of {size} px takes none of {side} px.").format(
                    kind=kind, size=size, side=side
                ),
                _("Set data.image_px to {size}, or image_size in its options to {side}.").format(
                    size=size, side=side
                ),
            ) from None

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The map `(B, C, h, w)` that `explained_layer` gives out."""
        kept: list[torch.Tensor] = []
        layer = self.get_submodule(self.explained_layer)
        hook = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        try:
            self(x_BCHW)
        finally:
            hook.remove()
        return explained.as_map(kept[-1], x_BCHW.shape[2:])

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Weights from features to scores: those that are trained first."""
        return (weight for _name, weight in pretrained.head_of(self.net))

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All other weights: those that may be pretrained."""
        head = {id(weight) for weight in self.head_parameters()}
        return (weight for weight in self.parameters() if id(weight) not in head)

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> Backbone | None:
        """Always `None`: names and shapes do not say which model of transformers it is."""
        return None

    def _levels(self) -> list[list[nn.Module]]:
        """The blocks of each stage, the finest first; of a network without stages all blocks are one."""
        body = self.net.base_model
        assert isinstance(body, nn.Module)  # which torch leaves open for every attribute
        lists = [m for m in body.modules() if _is_list(m)]
        if not lists:
            return []
        # What most weights are in; of lists in lists the outermost comes first.
        stages = list(max(lists, key=lambda one: sum(w.numel() for w in one.parameters())))
        inside = [stage if _is_list(stage) else _blocks_of(stage) for stage in stages]
        if all(blocks is None for blocks in inside):
            return [stages]
        return [[stage] if b is None else list(b) for stage, b in zip(stages, inside, strict=True)]

    def _new_head(self) -> None:
        for _name, weight in pretrained.head_of(self.net):
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.01)
            else:
                nn.init.zeros_(weight)

    def _adapt(self, before: int, after: int) -> None:
        """Give the first convolution `after` bands; images whose bands are all equal look to it as before."""
        name, conv = next(
            (n, m)
            for n, m in self.net.named_modules()
            if isinstance(m, nn.Conv2d) and m.in_channels == before and m.groups == 1
        )
        old = conv.weight.detach()
        again = -(-after // before)
        weight = old.repeat(1, again, 1, 1)[:, :after] * (before / after)
        # Bands that are repeated unevenly would weigh too much: the difference is spread over all.
        weight = weight + (old.sum(1, keepdim=True) - weight.sum(1, keepdim=True)) / after
        conv.weight, conv.in_channels = nn.Parameter(weight), after
        parts = name.split(".")
        for depth in range(len(parts) + 1):
            module = self.net.get_submodule(".".join(parts[:depth]))
            if getattr(module, "num_channels", None) == before:
                module.num_channels = after  # type: ignore[assignment]
        self.net.config.num_channels = after  # type: ignore[union-attr]
        self.notes.append(
            _("The backbone was trained on {before} bands; its first layer was adapted to {after}.").format(
                before=before, after=after
            )
        )

    def _say_missing(self, missing: list[str]) -> None:
        if missing:
            self.notes.append(
                _("{count} tensors of the backbone are not in its file and begin at random: {names}.").format(
                    count=len(missing), names=", ".join(missing[:3])
                )
            )


def _is_list(module: nn.Module | None) -> TypeGuard[nn.ModuleList | nn.Sequential]:
    return isinstance(module, nn.ModuleList | nn.Sequential)


def _blocks_of(stage: nn.Module) -> nn.ModuleList | nn.Sequential | None:
    """What transformers' models keep the blocks of a stage in; `None`: it is a block itself."""
    found = (getattr(stage, name, None) for name in ("layers", "blocks"))
    return next((one for one in found if _is_list(one)), None)


def _group_statistics(net: nn.Module, group: int) -> None:
    """Replace batch normalization by that of groups, with the same weights."""
    for module in list(net.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, nn.BatchNorm2d) and not isinstance(norm, GroupedBatchNorm2d):
                grouped = GroupedBatchNorm2d(norm.num_features, group)
                grouped.eps, grouped.momentum = norm.eps, norm.momentum
                grouped.weight, grouped.bias = norm.weight, norm.bias
                grouped.running_mean, grouped.running_var = norm.running_mean, norm.running_var
                grouped.num_batches_tracked = norm.num_batches_tracked
                setattr(module, name, grouped)
