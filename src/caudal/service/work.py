"""What a job does: a verb and what is given to it, with paths that were already found to be allowed.

Turns it into the words of a command line. Does not look at a file, and knows neither ids nor users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, TypeAdapter, model_validator

from caudal.core.config import Frozen
from caudal.core.units import Bytes
from caudal.tasks.generation.request import GenerationRequest

Verb = Literal["train", "predict", "evaluate", "explain", "pack", "generate"]
VERBS: tuple[Verb, ...] = get_args(Verb)
WORK_VARIABLE = "CAUDAL_WORK"
"""In the environment of a process that does a work by itself: the work, as JSON."""
NICENESS = 10
"""How far what a job computes stands back on the processors: a server that waits for it answers late."""


class _Work(Frozen):
    verb: Verb

    positional: ClassVar[tuple[str, ...]] = ()
    resumes: ClassVar[bool] = False
    """Whether a second attempt goes on with what the first one wrote; else it begins with an empty folder."""

    plans: ClassVar[bool] = False
    """Whether `plan.json` in the run folder says what it will hold."""
    module: ClassVar[str | None] = None
    """What does it, where that is no verb of the command line; it reads the work from `WORK_VARIABLE`."""

    ram: Bytes | None = None
    reads: tuple[str, ...] | None = None
    """The folders that data may be read from, whatever they name; `None`: who made this asks for no bound."""

    def writes(self, out: Path) -> Path | None:
        """What the verb is to write, in the run folder `out`; `None` where it writes nothing."""
        return None

    def words(self, out: Path) -> list[str]:
        """The command line after `caudal`; `out` is the run folder.

        Every value is bound to its option, and what is positional stands behind `--`: no value can be taken
        for an option.
        """
        return self._line(self.verb, self.writes(out))

    def _line(self, verb: str, written: Path | None) -> list[str]:
        values = self.model_dump(mode="json", exclude={"verb", "spec", "name", "reads"}, exclude_none=True)
        options, given = [], []
        for name, value in values.items():
            many = value if isinstance(value, list) else [value]
            if name in self.positional:
                given += [str(one) for one in many]
            elif value is True:
                options.append(f"--{name}")
            elif value is not False:
                options += [f"--{name}={one}" for one in many]
        if written is not None:
            options.append(f"--out={written}")
        return [verb, *options, "--json", "--", *given]


class TrainWork(_Work):
    """A task with its data, or a spec file."""

    positional = ("task", "data")
    resumes = True
    plans = True

    verb: Literal["train"] = "train"
    task: str | None = None
    spec: Path | None = None
    data: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    labels: str | None = None
    vram: Bytes | None = None
    device: str | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> TrainWork:
        if (self.spec is None) == (self.task is None):
            raise ValueError("give a task or a spec")
        if self.spec is not None and (self.data or self.masks or self.labels):
            raise ValueError("a spec says what the data are")
        if self.task is not None and not self.data:
            raise ValueError("no data were given")
        return self

    def writes(self, out: Path) -> Path:
        """The run itself."""
        return out

    def plan_words(self) -> list[str]:
        """The command line that says what it would hold, and writes nothing."""
        return self._line("plan", None)

    def _line(self, verb: str, written: Path | None) -> list[str]:
        words = super()._line(verb, written)
        return words if self.spec is None else [*words, str(self.spec)]  # it stands where a task would


class EvaluateWork(_Work):
    """A run, and data whose truth is known."""

    positional = ("run", "data")

    verb: Literal["evaluate"] = "evaluate"
    run: str
    data: tuple[str, ...] = Field(min_length=1)
    masks: tuple[str, ...] = ()
    labels: str | None = None
    vram: Bytes | None = None
    device: str | None = None


class PredictWork(_Work):
    """A run, and rasters, images or samples; `name` is that of the output in the run folder."""

    positional = ("run", "inputs")

    verb: Literal["predict"] = "predict"
    run: str
    inputs: tuple[str, ...] = Field(min_length=1)
    scores: bool = False
    d4: bool = False
    exact: bool = False
    vram: Bytes | None = None
    device: str | None = None
    name: str = Field(default="map.tif", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")

    def writes(self, out: Path) -> Path:
        """A file, or a folder where there are several inputs."""
        return out / self.name


class ExplainWork(_Work):
    """A run, and a picture or a folder of them."""

    positional = ("run", "images")

    verb: Literal["explain"] = "explain"
    run: str
    images: str
    method: tuple[str, ...] = ()
    target: str | None = None
    masks: str | None = None
    labels: str | None = None
    most: int | None = None
    device: str | None = None

    def writes(self, out: Path) -> Path:
        """A page."""
        return out / "why.html"


class PackWork(_Work):
    """A folder or a file of samples."""

    positional = ("data",)

    verb: Literal["pack"] = "pack"
    data: str
    samples: Literal["auto", "file", "rows"] | None = None
    resize: str | None = None
    shard: str | None = None

    def writes(self, out: Path) -> Path:
        """A new folder."""
        return out / "pack"


class GenerateWork(_Work):
    """Pictures of people: what is asked for, and the files that it needs. `generating.py` does it."""

    module = "caudal.service.generating"
    plans = True

    verb: Literal["generate"] = "generate"
    request: GenerationRequest
    model: str
    people: tuple[str, ...] = Field(min_length=1)
    engine: str = "onnx"
    pose: str | None = None
    identity: str | None = None
    adapter: str | None = None
    faces: str | None = None
    controls: dict[str, str] = Field(default_factory=dict)
    control_pictures: dict[str, str] = Field(default_factory=dict)
    lcm: str | None = None
    watermark: bool = True
    metadata: bool = True
    exact: bool = False
    vram: Bytes | None = None
    device: str | None = None

    def words(self, out: Path) -> list[str]:
        """The folder alone: a prompt is for nobody who looks at the list of processes."""
        return [str(out)]


Work = Annotated[
    TrainWork | EvaluateWork | PredictWork | ExplainWork | PackWork | GenerateWork,
    Field(discriminator="verb"),
]
WORK: TypeAdapter[Work] = TypeAdapter(Work)
