"""Everything that defines a run, before planning: what a user may write as TOML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from caudal.core.config import Frozen
from caudal.core.units import Bytes
from caudal.data.augment_settings import Augmentation
from caudal.memory.levers import LEVERS
from caudal.memory.levers.micro_batch import MicroBatch
from caudal.training.settings import TrainingSettings


class DataSettings(Frozen):
    """Where the samples come from.

    `images` are folders, files or CSV files; `masks` one folder for each, or none when they are found
    by themselves. `classes` lists the mask values in the order of class numbers (default: what the masks
    hold), `ignored` values that are left out. `patch_px` is chosen from the images' size when it is 0.
    At `density` 1 an epoch draws as many pixels as the images have. `open_chunks` pieces of images are
    shuffled into each other, at the most.
    """

    images: tuple[str, ...] = Field(min_length=1)
    masks: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()
    patch_px: int = Field(0, ge=0, le=2048)
    density: float = Field(1.0, gt=0)
    open_chunks: int = Field(48, ge=2)
    threads: int = Field(2, ge=1, le=64)


class SplitSettings(Frozen):
    """Part `fold` of `folds` is held out; images whose names match `group` alike stay together."""

    folds: int = Field(5, ge=2)
    fold: int = Field(0, ge=0)
    group: str | None = None


class ModelSettings(Frozen):
    """A model's name, and the keys of its own configuration."""

    name: str = "unet"
    config: dict[str, Any] = Field(default_factory=dict)


class RunSpec(Frozen):
    """A whole run. `ram` and `vram` default to 80 % of what the container has and 90 % of what is free."""

    task: str
    data: DataSettings
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    augmentation: Augmentation = Augmentation()
    device: Literal["auto", "cuda", "cpu"] = "auto"
    seed: int = Field(0, ge=0)
    ram: Bytes | None = None
    vram: Bytes | None = None

    def same_run(self, other: RunSpec) -> bool:
        """Whether a run of one may go on as the other: all but the budgets is the same."""
        free = {"ram": None, "vram": None}
        return self.model_copy(update=free) == other.model_copy(update=free)


def micro_batches(spec: RunSpec) -> MicroBatch:
    """The micro-batches that a spec's batch may be cut into."""
    lever: MicroBatch = LEVERS.get("micro_batch")(spec.training.batch, int(spec.model.config.get("group", 4)))
    return lever
