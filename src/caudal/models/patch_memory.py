"""Remembers what normal surroundings look like; scores a pixel by how far its own are from all of them.

As PatchCore (Roth et al., CVPR 2022), with a memory whose bytes are fixed beforehand however many images
there are, and a search whose distances are held piece by piece. Legend: B batch, C band, D feature, H row,
W column, h w rows and columns of the feature map, K patches in memory, N positions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from caudal.core.config import Frozen
from caudal.core.errors import BadValues, UsageError
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.core.units import Bytes
from caudal.models.anomaly_map import in_full_precision, reach_px, smoothed
from caudal.models.coreset import LEAST_ROWS, Coreset, nearest
from caudal.models.patch_features import Features, LocalFeatures, MapLayer

OFFERED = 1 << 18
"""So many positions are all looked at; of a longer stream, a share that falls as it goes on."""


class PatchMemoryConfig(Frozen):
    """`bank_bytes` is the most that the memory of a stored model takes, `search_bytes` what distances take
    while it is searched. `smooth_px` is the deviation of the Gaussian over the map.

    `source`: a folder with safetensors, a hub id, or a run or model folder of ours. Its maps are features,
    brought to at most `columns` numbers a position. Without it these are local means and fixed filters.
    `architecture`, `layers` and `reach_px` are found there, and stand in a trained model's card: then the
    source is not read.
    """  # fmt: skip

    bank_bytes: int = Field(1 << 18, ge=1 << 14)
    search_bytes: int = Field(16 << 20, ge=1 << 16)
    smooth_px: float = Field(1.0, ge=0, le=20)
    source: str | None = None
    columns: int = Field(128, ge=8, le=4096)
    architecture: dict[str, Any] | None = None
    layers: tuple[MapLayer, ...] = ()
    reach_px: int = Field(0, ge=0)


class PatchMemory(nn.Module):
    """Scores pixels of `bands` bands; `outputs` is 1, the map. `features` go before those of the config.

    Raises:
        BadModel, UsageError: as `NetFeatures`.
    """

    Config: ClassVar[type[PatchMemoryConfig]] = PatchMemoryConfig

    def __init__(
        self, bands: int, outputs: int, config: PatchMemoryConfig, features: Features | None = None
    ) -> None:
        super().__init__()
        assert outputs == 1
        self.bands, self.classes = bands, outputs
        self.features: Features = _features(bands, config) if features is None else features
        self.config = _told(config, self.features)
        self.notes: list[str] = list(getattr(self.features, "notes", ()))
        """What a user must hear of how the features came to be."""
        self.bank: torch.Tensor
        self.register_buffer("bank", torch.zeros(0, self.features.channels))
        self._coreset: Coreset | None = None
        self._images = self._seen = 0

    @property
    def multiple_px(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(getattr(self.features, "multiple_px", self.features.stride_px))

    @property
    def receptive_field_px(self) -> int:
        """How far from a pixel the input can still change its score."""
        # Between two positions of the feature map the score is a mean of both.
        return self.features.reach_px + self.features.stride_px + reach_px(self.config.smooth_px)

    def begin(self, budget_bytes: int) -> None:
        """Start with an empty memory that never takes more than `budget_bytes`, nor `bank_bytes` when stored.

        Besides, a batch's features are held: 4 · channels · H · W / stride² bytes an image.

        Raises:
            DoesNotFit: not even a few patches do.
            UsageError: nor do they into `bank_bytes`.
        """
        columns = self.features.channels
        if self.config.bank_bytes < 4 * columns * LEAST_ROWS:
            raise UsageError(
                _("A memory of {bank} holds fewer than {least} patches of {columns} numbers.").format(
                    bank=Bytes(self.config.bank_bytes), least=LEAST_ROWS, columns=columns
                ),
                _("Set bank_bytes of patch_memory to {needed} or more.").format(
                    needed=4 * columns * LEAST_ROWS
                ),
            )
        self._coreset = Coreset.within(budget_bytes, columns, self.config.bank_bytes // (4 * columns))
        self._images = self._seen = 0

    @torch.no_grad()
    def take(self, x_BCHW: torch.Tensor, valid_BHW: torch.Tensor | None = None) -> None:
        """Remember what is new in these images. A position counts when its whole cell is valid."""
        assert self._coreset is not None, "begin() comes first"
        for i in range(len(x_BCHW)):
            with in_full_precision(x_BCHW):
                features_ND = self.features(x_BCHW[i : i + 1])[0].flatten(1).T.cpu()
            if valid_BHW is not None:
                side = self.features.stride_px
                whole = -F.max_pool2d(-valid_BHW[i : i + 1].float(), side)
                features_ND = features_ND[whole.flatten().cpu() > 0]
            self._images += 1
            if len(features_ND):
                self._seen += len(features_ND)
                self._coreset.take(self._offered(features_ND))

    def _offered(self, features_ND: torch.Tensor) -> torch.Tensor:
        """All of a short stream; else a share, so that the work grows with the logarithm of the images."""
        share = OFFERED / self._seen
        if share >= 1:
            return features_ND
        draws = generator(0, "patches", self._images).random(len(features_ND))
        return features_ND[torch.from_numpy(draws < share)]

    def finish(self) -> None:
        """Keep the memory.

        Raises:
            BadValues: no valid position was seen.
        """
        assert self._coreset is not None
        coreset, self._coreset = self._coreset, None
        if not len(coreset.points):
            raise BadValues(
                _("No valid pixel was seen, so nothing is known of what is normal."),
                _("Check the nodata value of the images."),
            )
        self.bank = coreset.points.clone()

    @torch.no_grad()
    def score_map(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Distances to the nearest patch in memory, (B, H, W) float32, smoothed."""
        assert len(self.bank), "finish() comes first"
        with in_full_precision(x_BCHW):
            maps = [self._distances(x_BCHW[i : i + 1]) for i in range(len(x_BCHW))]
            maps_B1HW = F.interpolate(
                torch.cat(maps), size=x_BCHW.shape[2:], mode="bilinear", align_corners=False
            )
            return smoothed(maps_B1HW[:, 0], self.config.smooth_px)

    def _distances(self, x_1CHW: torch.Tensor) -> torch.Tensor:
        features_1Dhw = self.features(x_1CHW).float()
        points_ND = features_1Dhw[0].flatten(1).T
        rows = min(len(points_ND), max(1, self.config.search_bytes // (4 * len(self.bank))))
        room_M = points_ND.new_empty(rows * len(self.bank))
        far_N = nearest(points_ND, self.bank.float(), room_M)
        return far_N.view(1, 1, *features_1Dhw.shape[2:])

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The map: nothing else is learned from."""
        return self.score_map(x_BCHW)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # How many patches are kept is known by the file alone.
        stored = state.get(f"{prefix}bank")
        if stored is not None and stored.ndim == 2 and stored.shape[1] == self.bank.shape[1]:
            self.bank = torch.empty(stored.shape, device=self.bank.device)
        super()._load_from_state_dict(state, prefix, *rest)

    @classmethod
    def from_shapes(cls, shapes: dict[str, tuple[int, ...]]) -> PatchMemory | None:
        """A model whose state dict has these names and shapes, or `None`: another kind, or own features."""
        filters, bank = shapes.get("features.filters", ()), shapes.get("bank", ())
        if len(filters) != 4 or len(bank) != 2:
            return None
        model = cls(filters[1], 1, PatchMemoryConfig())
        model.bank = torch.zeros(bank) if model.bank.shape[1] == bank[1] else model.bank
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        return model if wanted == shapes else None


def _features(bands: int, config: PatchMemoryConfig) -> Features:
    if config.source is None and config.architecture is None:
        return LocalFeatures(bands)
    from caudal.models.net_features import NetFeatures

    return NetFeatures(
        bands, config.source, config.architecture, config.layers, config.reach_px, config.columns
    )


def _told(config: PatchMemoryConfig, features: Features) -> PatchMemoryConfig:
    """The configuration with what was found of a network, so that its source is not wanted again."""
    architecture = getattr(features, "architecture", None)
    if architecture is None:
        return config
    found = {"architecture": architecture, "layers": features.layers, "reach_px": features.net_reach_px}  # type: ignore[attr-defined]
    return config.model_copy(update=found)
