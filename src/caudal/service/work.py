"""What a job does: a verb and what is given to it, with paths that were already found to be allowed.

Turns it into the words of a command line. Does not look at a file, and knows neither ids nor users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter, model_validator

from caudal.core.config import Frozen
from caudal.core.units import Bytes


class _Work(Frozen):
    positional: ClassVar[tuple[str, ...]] = ()
    resumes: ClassVar[bool] = False
    """Whether a second attempt goes on with what the first one wrote; else it begins with an empty folder."""

    ram: Bytes | None = None

    def writes(self, out: Path) -> Path | None:
        """What the verb is to write, in the run folder `out`; `None` where it writes nothing."""
        return None

    def words(self, out: Path) -> list[str]:
        """The command line after `caudal`; `out` is the run folder.

        Every value is bound to its option, and what is positional stands behind `--`: no value can be taken
        for an option.
        """
        values = self.model_dump(mode="json", exclude={"verb", "spec", "name"}, exclude_none=True)
        options, given = [], []
        for name, value in values.items():
            many = value if isinstance(value, list) else [value]
            if name in self.positional:
                given += [str(one) for one in many]
            elif value is True:
                options.append(f"--{name}")
            elif value is not False:
                options += [f"--{name}={one}" for one in many]
        if (written := self.writes(out)) is not None:
            options.append(f"--out={written}")
        verb: str = self.verb  # type: ignore[attr-defined]
        return [verb, *options, "--json", "--", *given]


class TrainWork(_Work):
    """A task with its data, or a spec file."""

    positional = ("task", "data")
    resumes = True

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

    def words(self, out: Path) -> list[str]:
        """As all; a spec stands where a task would."""
        words = super().words(out)
        return words if self.spec is None else [*words, str(self.spec)]


class EvaluateWork(_Work):
    """A run, and data whose truth is known."""

    positional = ("run", "data")

    verb: Literal["evaluate"] = "evaluate"
    run: str
    data: tuple[str, ...] = Field(min_length=1)
    masks: tuple[str, ...] = ()
    labels: str | None = None
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


Work = Annotated[TrainWork | EvaluateWork | PredictWork | ExplainWork | PackWork, Field(discriminator="verb")]
WORK: TypeAdapter[Work] = TypeAdapter(Work)
