"""Describes the surroundings of a pixel by what a trained network makes of them: its maps of middle depth.

The network is one of transformers or one that was trained here; nothing of it is learned further. As in
PatchCore (Roth et al., CVPR 2022), maps of two scales are averaged over neighbours and laid over each other;
a fixed projection keeps the distances between them in fewer numbers (Johnson and Lindenstrauss, 1984).
Legend: B batch, C channel, D feature, H row, W column, h w rows and columns of a map.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.models import weights
from caudal.models.backbone import Backbone, BackboneConfig
from caudal.models.patch_features import MapLayer

OWN = "caudal"
"""The key that marks an architecture as one of ours."""
WITH_MAPS = ("residual", "backbone", "unet", "autoencoder")
_TRACED_PX = 64
_FINEST, _COARSEST = 8, 16  # strides of maps that are laid over each other, as far as there are such
_LOOKING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_UNBOUNDED_PX = 1 << 16  # a model that looks at the whole image: no tile equals it


class NetFeatures(nn.Module):
    """Features of images of `bands` bands from a network; see `patch_features.Features`.

    `architecture` is what a trained model's card says; then `source` is not read. `columns` are the most
    numbers that describe a position.

    Raises:
        BadModel: the source holds no model, one for other bands, or one without maps.
        UsageError: transformers is needed and not installed.
    """

    def __init__(
        self,
        bands: int,
        source: str | None,
        architecture: dict[str, Any] | None,
        layers: tuple[MapLayer, ...],
        reach_px: int,
        columns: int,
    ) -> None:
        super().__init__()
        self.net, self.architecture = _network(bands, source, architecture)
        self.net.requires_grad_(False)
        self.notes: list[str] = list(getattr(self.net, "notes", ()))
        """What a user must hear of how this network came to be."""
        if not layers:
            layers, reach_px = _chosen(self.net, bands, source)
        self.layers, self.net_reach_px = layers, reach_px
        self.stride_px = min(layer.stride_px for layer in layers)
        self.multiple_px = max(layer.stride_px for layer in layers)
        # Neighbours that are averaged, and the next cell where a coarser map is interpolated.
        self.reach_px = reach_px + sum(layer.stride_px for layer in layers) + self.multiple_px
        wide = sum(layer.channels for layer in layers)
        self.channels = min(columns, wide)
        self.projection: torch.Tensor
        self.register_buffer("projection", projection(wide, self.channels))
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays as it is: statistics of its batches were learned elsewhere."""
        return super().train(False)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, channels, H / stride, W / stride), float32; H and W multiples of `multiple_px`."""
        kept: dict[str, torch.Tensor] = {}
        hooks = [self._keep(layer.name, kept) for layer in self.layers]
        try:
            self.net(x_BCHW.float())
        finally:
            for hook in hooks:
                hook.remove()
        size = (x_BCHW.shape[2] // self.stride_px, x_BCHW.shape[3] // self.stride_px)
        parts = []
        for layer in self.layers:
            near = F.avg_pool2d(F.pad(kept[layer.name].float(), (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            if near.shape[2:] != size:
                near = F.interpolate(near, size=size, mode="bilinear", align_corners=False)
            parts.append(near)
        return torch.einsum("dc,bchw->bdhw", self.projection, torch.cat(parts, 1))

    def _keep(self, name: str, kept: dict[str, torch.Tensor]) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            kept[name] = output

        return self.net.get_submodule(name).register_forward_hook(hook)


def projection(wide: int, columns: int) -> torch.Tensor:
    """A matrix (columns, wide) that changes the distance of two points by little; the identity if square."""
    if columns == wide:
        return torch.eye(wide)
    draws = generator(0, "projection", wide).standard_normal((columns, wide))
    values: torch.Tensor = torch.from_numpy(draws).float() / columns**0.5
    return values


def _network(
    bands: int, source: str | None, architecture: dict[str, Any] | None
) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and what has to be known to build it again without its source."""
    if architecture is not None and OWN in architecture:
        own = architecture[OWN]
        return weights.build(own["architecture"], bands, own["outputs"], own["config"]), architecture
    if architecture is None and source is not None and (folder := _own_folder(source)) is not None:
        net, card = weights.load(folder)
        if card.bands != bands or card.architecture not in WITH_MAPS:
            raise BadModel(
                _(
                    "{source} is a model “{name}” of {found} bands, and features of {bands} are wanted."
                ).format(source=source, name=card.architecture, found=card.bands, bands=bands),
                _("Use a model of one of these kinds, and of as many bands: {names}.").format(
                    names=", ".join(WITH_MAPS)
                ),
            )
        config = net.config.model_dump(mode="json")  # type: ignore[union-attr, operator]
        told = {"architecture": card.architecture, "outputs": card.outputs, "config": config}
        return net, {OWN: told}
    net = Backbone(bands, 1, BackboneConfig(source=source, architecture=architecture))
    assert net.config.architecture is not None
    return net, net.config.architecture


def _own_folder(source: str) -> Path | None:
    """Where the model of a run or a model's folder lies, if it is one of ours."""
    for folder in (Path(source) / "model", Path(source)):
        if (folder / weights.CARD).is_file():
            return folder
    return None


def _chosen(net: nn.Module, bands: int, source: str | None) -> tuple[tuple[MapLayer, ...], int]:
    """The last module of each wanted scale, the finer first, and how far they look in px.

    Raises:
        BadModel: there is none behind the first convolution.
    """
    seen: dict[int, MapLayer] = {}
    reach: dict[int, int] = {}
    looked, convolutions = 0, 0

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal looked, convolutions
        into = next((one for one in inputs if isinstance(one, torch.Tensor)), None)
        if into is not None and into.ndim == 4 and isinstance(module, _LOOKING):
            looked += _side(module.kernel_size, module) * max(1, _TRACED_PX // into.shape[2])
            convolutions += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.AdaptiveAvgPool2d):  # a head's comes behind all maps
            looked = _UNBOUNDED_PX
        if not isinstance(output, torch.Tensor) or output.ndim != 4 or convolutions < 2:
            return
        if _TRACED_PX % output.shape[2] == 0 and output.shape[2] == output.shape[3] > 1:
            stride = _TRACED_PX // output.shape[2]
            seen[stride] = MapLayer(name=name, channels=output.shape[1], stride_px=stride)
            reach[stride] = looked

    hooks = [
        module.register_forward_hook(partial(note, name)) for name, module in net.named_modules() if name
    ]
    was_training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, bands, _TRACED_PX, _TRACED_PX))
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    fine = max((stride for stride in seen if stride <= _FINEST), default=0)
    if not fine:
        raise BadModel(
            _("{source} gives no maps of features that are finer than {px} px.").format(
                source=source, px=_FINEST
            ),
            _("Choose a convolutional network, such as resnet, convnext or regnet."),
        )
    coarse = [stride for stride in seen if fine < stride <= _COARSEST]
    strides = [fine, *coarse[:1]]
    return tuple(seen[stride] for stride in strides), max(reach[stride] for stride in strides)


def _side(kernel: Any, module: Any) -> int:
    """How far a kernel looks to both sides together, in px of its input."""
    size = kernel if isinstance(kernel, int) else max(kernel)
    dilation = getattr(module, "dilation", 1)
    return (int(size) - 1) * int(dilation if isinstance(dilation, int) else max(dilation))
