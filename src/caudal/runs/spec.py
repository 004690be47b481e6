"""Everything that defines a run, before planning: what a user may write as TOML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

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

    For tasks over samples as they lie in files, `images` is one folder, file or pack of them; `labels` a CSV
    that says more of each file; `target` the field or column that is learned; `samples` whether a file of
    arrays is one sample (`file`) or many (`rows`); of two classes `positive` is the one that is looked for
    (default: the second). Sequences may be cut into windows of `window` steps, one every `stride` (0: as
    many), with the labels of their `steps`, of the `last`, or of most. Pictures are brought to `image_px` a
    side, and their values made mean 0 and deviation 1 over all of the `set` or in each `picture`.
    """

    images: tuple[str, ...] = Field(min_length=1)
    masks: tuple[str, ...] = ()
    labels: str | None = None
    target: str | None = None
    samples: Literal["auto", "file", "rows"] = "auto"
    window: int = Field(0, ge=0)
    stride: int = Field(0, ge=0)
    window_label: Literal["steps", "last", "majority"] = "steps"
    positive: str | None = None
    image_px: int = Field(64, ge=8, le=2048)
    normalize: Literal["set", "picture"] = "set"
    classes: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()
    patch_px: int = Field(0, ge=0, le=2048)
    density: float = Field(1.0, gt=0)
    open_chunks: int = Field(48, ge=2)
    threads: int = Field(2, ge=1, le=64)


class SplitSettings(Frozen):
    """Part `fold` of `folds` is held out; images whose names match `group` alike stay together.

    For tasks over samples `group` is a field, or a column of the labels. Where the data have a field or
    column `split`, or parts of that name, and `given` is left on, they are held to it. With `together`,
    pictures that are nearly the same stay on one side.
    """

    folds: int = Field(5, ge=2)
    fold: int = Field(0, ge=0)
    group: str | None = None
    given: bool = True
    together: bool = True


class ModelSettings(Frozen):
    """A model's name, and the keys of its own configuration."""

    name: str = "unet"
    config: dict[str, Any] = Field(default_factory=dict)


DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "anomaly": {
        "model": {"name": "auto"},
        "training": {"steps": 2000, "batch": 16, "learning_rate": 1e-3, "patience": 0, "precision": "fp32"},
        "augmentation": {
            "flips": True,
            "zoom": 0.0,
            "turn_degrees": 0.0,
            "gain": 0.0,
            "shift": 0.0,
            "mix": 0.0,
            "bend": 0.0,
            "invert": 0.0,
        },
    },
    "classification": {
        "model": {"name": "residual"},
        "data": {"normalize": "picture"},
        "training": {
            "steps": 800,
            "batch": 16,
            "learning_rate": 1e-3,
            "weight_decay": 0.3,
            "balance": True,
            "patience": 0,
            "keep": "last",
        },
        "augmentation": {"zoom": 0.3, "invert": 0.0},
    },
    "sequence": {
        "model": {"name": "temporal"},
        "training": {
            "steps": 400,
            "batch": 32,
            "learning_rate": 5e-3,
            "weight_decay": 0.2,
            "patience": 0,
            "keep": "last",
            "precision": "fp32",
        },
        "augmentation": {"noise": 0.2},
    },
    "graph": {
        "model": {"name": "graph_conv"},
        "training": {
            "steps": 1500,
            "batch": 32,
            "learning_rate": 4e-3,
            "weight_decay": 0.3,
            "patience": 0,
            "keep": "last",
            "precision": "fp32",
        },
    },
}
"""What a task sets where a spec says nothing, by section."""
LEARNED_ELSEWHERE: dict[str, dict[str, Any]] = {
    "data": {"normalize": "set"},  # values as those weights know them
    "training": {"head_first": 0.2, "body_rate": 0.1, "weight_decay": 0.02},
}
"""What is set instead for a model whose weights come from elsewhere."""


class AlarmSettings(Frozen):
    """Of the task anomaly: the shares of good `images`, and of their `pixels`, that are to be false alarms.

    `method`: where scores are too few to know so rare a value, a tail is fitted to the highest ("extreme"),
    or the highest ones are taken as they are ("quantile").
    """

    images: float = Field(0.05, gt=0, lt=1)
    pixels: float = Field(0.01, gt=0, lt=1)
    method: Literal["extreme", "quantile"] = "extreme"


class RunSpec(Frozen):
    """A whole run. What it leaves out is set by its task (`DEFAULTS`), else as written here.

    `ram` and `vram` default to 80 % of what the container has and 90 % of what is free.
    """

    task: str
    data: DataSettings
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    augmentation: Augmentation = Augmentation()
    alarms: AlarmSettings = AlarmSettings()
    device: Literal["auto", "cuda", "cpu"] = "auto"
    seed: int = Field(0, ge=0)
    ram: Bytes | None = None
    vram: Bytes | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_task(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for section, keys in DEFAULTS.get(str(values.get("task")), {}).items():
            given = filled.get(section, {})
            if section == "model" and isinstance(given, dict) and "name" in given:
                continue  # the rest of a default goes with its own model
            if isinstance(given, dict):
                filled[section] = {**keys, **given}
        model = filled.get("model")
        if isinstance(model, dict) and dict(model.get("config") or {}).get("source"):
            for section, keys in LEARNED_ELSEWHERE.items():
                given = values.get(section, {})
                if isinstance(given, dict):
                    filled[section] = {**filled.get(section, {}), **keys, **given}
        return filled

    @field_validator("alarms")
    @classmethod
    def _of_anomalies(cls, alarms: AlarmSettings, info: ValidationInfo) -> AlarmSettings:
        if info.data.get("task", "anomaly") != "anomaly" and alarms != AlarmSettings():
            raise ValueError("alarms are of the task anomaly alone")
        return alarms

    def same_run(self, other: RunSpec) -> bool:
        """Whether a run of one may go on as the other: all but the budgets is the same."""
        free = {"ram": None, "vram": None}
        return self.model_copy(update=free) == other.model_copy(update=free)


_ONE_BY_ONE = ("sequence", "graph")
"""Tasks whose models normalize over no other sample than their own."""


def micro_batches(spec: RunSpec) -> MicroBatch:
    """The micro-batches that a spec's batch may be cut into."""
    group = int(spec.model.config.get("group", 1 if spec.task in _ONE_BY_ONE else 4))
    lever: MicroBatch = LEVERS.get("micro_batch")(spec.training.batch, group)
    return lever
