"""What may be asked of the service: the bodies of requests. Data are named by ids, and by names below them.

Bodies are taken as they are: a number in quotes is no number here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path as PathPart
from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from caudal.service.records import Scope
from caudal.tasks.generation.request import Precision, Scheduler

_NO_CONTROL = r"^[^\x00-\x1f\x7f]*$"
ID_PATTERN = "^[0-7][0-9a-hjkmnp-tv-z]{25}$"
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
PathId = Annotated[str, PathPart(pattern=ID_PATTERN)]
QueryPlace = Annotated[
    str | None, Query(min_length=1, max_length=1024, pattern=_NO_CONTROL, description="As you call it")
]
QueryId = Annotated[str | None, Query(pattern=ID_PATTERN)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_NO_CONTROL)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f\\]*$")]
Size = (
    Annotated[int, Field(ge=1, le=2**50, description="Bytes")]
    | Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}(\.[0-9]{1,3})? ?[KMGT]i?B$")]
)
Text = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
Device = Literal["auto", "cuda", "cpu"]
Settings = Annotated[dict[str, Any], Field(max_length=40)]


class Ask(BaseModel):
    """The base of all of them."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewProject(Ask):
    """A project."""

    name: Name


class NewDataset(Ask):
    r"""Data in a root (`root` and `path` below it, or `place` as you call it: `C:\scenes`), or to be sent.

    Without any of the three it is empty, and takes files.
    """

    name: Name
    project: Id | None = None
    root: Name | None = None
    path: Annotated[str, StringConstraints(max_length=1024, pattern=_NO_CONTROL)] | None = None
    place: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_NO_CONTROL)] | None = None


class FetchFile(Ask):
    """A file on the web that the server gets for itself, if it may."""

    url: Annotated[str, StringConstraints(min_length=8, max_length=2000, pattern=_NO_CONTROL)]
    name: FileName


class Data(Ask):
    """A data set, or one file or folder of it."""

    dataset: Id
    file: FileName | None = None


class Spec(Ask):
    """What a spec may say, but for where data are; each section as `caudal schema` has it."""

    model: Settings = {}
    training: Settings = {}
    split: Settings = {}
    augmentation: Settings = {}
    data: Settings = {}


class NewPlan(Ask):
    """What a training would hold, and why. Nothing is trained."""

    task: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,40}$")]
    data: Data
    masks: Data | None = None
    labels: Data | None = None
    spec: Spec = Spec()
    ram: Size | None = None
    vram: Size | None = None
    device: Device | None = None
    seed: Annotated[int, Field(ge=0, le=2**31)] | None = None


class _NewJob(Ask):
    name: Annotated[str, StringConstraints(max_length=100, pattern=_NO_CONTROL)] = ""
    project: Id | None = None
    priority: int = Field(0, ge=-10, le=10)
    limit_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    ram: Size | None = None


_SAID_BY_A_PLAN = ("task", "data", "masks", "labels", "spec", "device", "seed")


class TrainJob(_NewJob):
    """Train: as a plan says (`plan`), or a task on data. A plan brings its budget, if none is given."""

    verb: Literal["train"]
    plan: Id | None = None
    task: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,40}$")] | None = None
    data: Data | None = None
    masks: Data | None = None
    labels: Data | None = None
    spec: Spec = Spec()
    vram: Size | None = None
    device: Device | None = None
    seed: Annotated[int, Field(ge=0, le=2**31)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> TrainJob:
        if (self.plan is None) == (self.task is None or self.data is None):
            raise ValueError("give a plan, or a task and data")
        said = [name for name in _SAID_BY_A_PLAN if getattr(self, name) not in (None, Spec())]
        if self.plan is not None and said:
            raise ValueError(f"the plan says it already: leave out {', '.join(said)}")
        return self


class PredictJob(_NewJob):
    """Map rasters, images or samples with the model of a run."""

    verb: Literal["predict"]
    run: Id
    inputs: Annotated[list[Data], Field(min_length=1, max_length=1000)]
    scores: bool = False
    d4: bool = False
    exact: bool = False
    vram: Size | None = None
    device: Device | None = None


class EvaluateJob(_NewJob):
    """Score the model of a run on data whose truth is known."""

    verb: Literal["evaluate"]
    run: Id
    data: Data
    masks: Data | None = None
    labels: Data | None = None
    vram: Size | None = None
    device: Device | None = None


class ExplainJob(_NewJob):
    """Draw what in pictures speaks for the class that the model of a run saw."""

    verb: Literal["explain"]
    run: Id
    images: Data
    method: list[Literal["gradcam", "hirescam", "integrated_gradients", "occlusion"]] = []
    target: Annotated[str, StringConstraints(pattern=r"^[\w][\w .-]{0,60}$")] | None = None
    masks: Data | None = None
    labels: Data | None = None
    most: Annotated[int, Field(ge=1, le=1000)] | None = None
    device: Device | None = None


class PackJob(_NewJob):
    """Copy samples once into files that are read without decoding."""

    verb: Literal["pack"]
    data: Data
    samples: Literal["auto", "file", "rows"] | None = None
    resize: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")] | None = None
    shard: Size | None = None


class GenerateJob(_NewJob):
    """Make pictures of people from their faces and a prompt. Needs the extra `generation`.

    `model` is the folder of an SDXL model, `people` a picture of a face for each of them; `controls` are the
    folders of further ControlNets by kind, `control_pictures` what they are shown. `lcm_adapter` is merged
    into the model for few steps. The result tells the notice of consent and the licence of each part.
    """

    verb: Literal["generate"]
    model: Data
    people: Annotated[list[Data], Field(min_length=1, max_length=16)]
    prompt: Text
    negative: Text = ""
    style: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_ -]{0,60}$")] = "none"
    width: Annotated[int, Field(ge=64, le=8192)] | None = None
    height: Annotated[int, Field(ge=64, le=8192)] | None = None
    steps: Annotated[int, Field(ge=1, le=500)] | None = None
    guidance: Annotated[float, Field(ge=0, le=50)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    identity_strength: Annotated[float, Field(ge=0, le=1.5)] = 0.8
    adapter_strength: Annotated[float, Field(ge=0, le=1.5)] = 0.8
    identity_end: Annotated[float, Field(gt=0, le=1)] = 1.0
    face_region: bool = False
    scheduler: Scheduler = "default"
    precision: Precision = "auto"
    lcm: bool = False
    engine: Literal["onnx", "opencv", "stand_in"] = "onnx"
    pose: Data | None = None
    identity: Data | None = None
    adapter: Data | None = None
    lcm_adapter: Data | None = None
    faces: Data | None = None
    controls: Annotated[dict[Kind, Data], Field(max_length=8)] = {}
    control_pictures: Annotated[dict[Kind, Data], Field(max_length=8)] = {}
    control_strengths: Annotated[dict[Kind, Annotated[float, Field(ge=0, le=1.5)]], Field(max_length=8)] = {}
    watermark: bool = True
    metadata: bool = True
    exact: bool = False
    vram: Size | None = None
    device: Device | None = None


NewJob = Annotated[
    TrainJob | PredictJob | EvaluateJob | ExplainJob | PackJob | GenerateJob, Field(discriminator="verb")
]


class NewKey(Ask):
    """A key for somebody. It is shown once."""

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)]
    days: Annotated[float, Field(gt=0, le=3650)] | None = None
