"""One place for whoever generates again and again: the verb, the page, a service. Plans, loads, makes, tells.

Loads nothing before a plan fits. Keeps the session while the plan stays the same, so that a second picture
costs its steps alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caudal import __version__
from caudal.core.errors import BadModel, UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import vram as vram_meter
from caudal.memory.meters import charged_bytes
from caudal.models.generation.faces import ENGINES
from caudal.models.generation.layout import PARTS, ModelFolder, find
from caudal.runs.generation.beside import Beside
from caudal.runs.generation.notices import licences
from caudal.runs.generation.pictures import Given, natural_size, read_picture
from caudal.runs.generation.plan import GenerationPlan, make_plan
from caudal.runs.machine import processors
from caudal.tasks.generation.faces import DETECTION_PX, FaceEngine, Picture, detection_bytes
from caudal.tasks.generation.request import GenerationRequest

if TYPE_CHECKING:  # torch comes when something is planned
    from caudal.runs.generation.forecast import Forecast

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Wish:
    """A request with its pictures: faces of people, a pose, and what further ControlNets are shown."""

    request: GenerationRequest
    people: tuple[str, ...]
    pose: str | None = None
    control_pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Budgets:
    """What may be held, where it is computed, and whether no lever may change numbers."""

    ram: str | int | None = None
    vram: str | int | None = None
    device: str = "auto"
    exact: bool = False


@dataclass(frozen=True)
class Finished:
    """A picture, its seed, and all that is written of it."""

    seed: int
    x_HWC: Picture
    facts: dict[str, Any]


class Studio:
    """A model folder with a face engine, under budgets. Use it in a `with`."""

    def __init__(
        self,
        model: ModelFolder,
        engine: str = "onnx",
        budgets: Budgets | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Open the face engine; no network is loaded. `say` hears each warning when it arises.

        Raises:
            BadModel: the engine's models are missing.
            UsageError: no such engine, or a package is missing.
        """
        self.model, self.budgets = model, budgets or Budgets()
        kind = ENGINES.get(engine)
        self.engine: FaceEngine = kind(model.faces or model.base / "faces", processors())
        self.warnings: list[str] = []
        self.say = say
        self._session: Any = None
        self._promised: GenerationPlan | None = None  # of the session that is there, or comes just now
        self._beside = Beside()
        self._described: dict[tuple[str, int, int], Any] = {}

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give every weight back."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._promised = None

    def plan(self, wish: Wish) -> GenerationPlan:
        """What these pictures will take, before anything is loaded.

        Raises:
            BadModel, DeviceMissing, DoesNotFit, UnreadableFile, UsageError: see `make_plan`.
        """
        from caudal.runs.generation.trace import of_folder

        check_controls(self.model, wish.control_pictures, wish.request.control_strengths)
        return make_plan(
            self._sized(wish),
            of_folder(self.model),
            ram=self.budgets.ram,
            vram=self.budgets.vram,
            device=self.budgets.device,
            faces=_models_bytes(self.model, self.engine),
            detecting=detection_bytes(max(DETECTION_PX[0], self.engine.least_px)),
            exact=self.budgets.exact,
            beside=self._beside.ram(self._promised),
            free_vram=self._free_vram(),
        )

    def make(
        self, wish: Wish, plan: GenerationPlan, tick: Tick = lambda _done, _total: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Finished]:  # fmt: skip
        """Pictures one by one. `tick` hears of steps; `stop` is asked after each.

        Raises:
            BadValues, UnreadableFile: a picture without a face, or that cannot be read.
            Interrupted: `stop` said yes.
        """
        from caudal.runs.generation.people import seat
        from caudal.runs.generation.session import Session

        self.warnings.clear()  # those of an earlier picture
        request = self._sized(wish)
        if self._session is None or _differs(self._session.plan, plan):
            self.close()
            self._promised = plan
            if plan.device == "cuda":
                vram_meter.cap(plan.memory.vram or plan.memory.predicted("vram"))
            self._session = Session(self.model, plan)
        session = self._session
        session.check(request)
        people = [self._person(path) for path in wish.people]
        sitting = seat(
            self.engine, people, plan.width, plan.height,
            pose=None if wish.pose is None else self._picture(wish.pose),
            controls=tuple(self.model.controls),
            control_pictures={kind: self._picture(path) for kind, path in wish.control_pictures.items()},
            face_region=request.face_region,
            left=self._left,
        )  # fmt: skip
        self._warn(sitting.warnings)
        for made in session.make(request, sitting, tick, stop, self._foretell):
            yield Finished(made.seed, made.x_HWC, self._facts(request, plan, made.seed))

    def _foretell(self, told: Forecast) -> None:
        """Say what weights on disk will cost, before the first step."""
        self._warn(
            [
                _(
                    "Each step reads {bytes} of weights at {rate}/s: about {slow:.2g} s, not {fast:.2g} s "
                    "({times:.2g} times as long)."
                ).format(
                    bytes=Bytes(told.read_bytes),
                    rate=Bytes(told.read_bytes_per_second),
                    slow=told.from_disk_seconds,
                    fast=told.in_memory_seconds,
                    times=told.slowdown,
                )
            ]
        )

    def held(self) -> dict[str, dict[str, int]]:
        """Bytes that are held now, by pool and holder: the weights of each part, and all the rest as one."""
        session = self._session  # another thread may close it meanwhile
        weights = {} if session is None else session.held()
        found = {"ram": dict(weights.get("cpu", {}))}
        found["ram"][_("everything else")] = max(0, int(charged_bytes()) - sum(found["ram"].values()))
        reading = vram_meter.reading()
        if reading is not None:
            found["vram"] = dict(weights.get("cuda", {}))
            other = int(reading.allocated) - sum(found["vram"].values())
            found["vram"][_("other tensors")] = max(0, other)
            found["vram"][_("kept by the allocator")] = int(reading.reserved - reading.allocated)
        return found

    @property
    def forecast(self) -> Forecast | None:
        """What was said of a step with weights from disk; `None` where there was nothing to say."""
        return None if self._session is None else self._session.forecast

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent so far, by what for."""
        return {} if self._session is None else dict(self._session.times.seconds)

    @property
    def hits(self) -> dict[str, int]:
        """How often a prompt or a face was known already."""
        if self._session is None:
            return {}
        return {"prompts": self._session.prompts.hits, "faces": self._session.faces.hits}

    def _free_vram(self) -> Bytes | None:
        """What the card has for a session, where the user has not said it."""
        if self.budgets.vram or self.budgets.device == "cpu":
            return None
        return self._beside.vram(self._promised)

    def _sized(self, wish: Wish) -> GenerationRequest:
        """The request with a size: its own, else one like the pose picture's."""
        if wish.request.width is not None:
            return wish.request
        shown = self._picture(wish.pose or wish.people[0])
        width, height = natural_size(shown.x_HWC)
        return wish.request.model_copy(update={"width": width, "height": height})

    def _person(self, path: str) -> Any:
        from caudal.runs.generation.people import describe

        key = _identity_of(path)
        if key not in self._described:
            (found,), warnings = describe(self.engine, [path], self._left)
            self._described = {**dict(list(self._described.items())[-7:]), key: (found, warnings)}
        found, warnings = self._described[key]
        self._warn(warnings)
        return found

    def _picture(self, path: str) -> Given:
        given = read_picture(path, self._left())
        self._warn(given.warnings)
        return given

    def _warn(self, texts: Sequence[str]) -> None:
        for text in texts:
            if text not in self.warnings:
                self.warnings.append(text)
                self.say(text)

    def _left(self) -> int:
        """Bytes of the budget that are free now."""
        from caudal.runs.machine import ram_budget

        asked = None if self.budgets.ram is None else Bytes.parse(self.budgets.ram)
        return int(ram_budget(asked)) - int(charged_bytes())

    def _facts(self, request: GenerationRequest, plan: GenerationPlan, seed: int) -> dict[str, Any]:
        return {
            "generated_by": f"caudal {__version__}",
            "generated_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": request.model_dump(mode="json") | {"seed": seed, "count": 1},
            "model": self.model.base.name,
            "controls": sorted(self.model.controls),
            "face_engine": self.engine.name,
            "precision": plan.precision,
            "levers": {lever.name: lever.value for lever in plan.memory.levers},
            "licences": licences(self.model, self.engine.name, self.engine.licence),
        }


def check_controls(
    model: ModelFolder, pictures: Mapping[str, object], strengths: Mapping[str, object]
) -> None:
    """What is said of a ControlNet that is not there would be ignored: refused instead.

    Raises:
        UsageError: it is.
    """
    for flag, values in {"--control-picture": pictures, "--control-strength": strengths}.items():
        for kind in values.keys() - model.controls.keys():
            raise UsageError(
                _("{flag} names “{kind}”, and there is no such ControlNet here.").format(
                    flag=flag, kind=kind
                ),
                _("Add it with --control {kind}=FOLDER, or leave {flag} out.").format(kind=kind, flag=flag),
            )


def open_model(
    model: str | Path,
    identity: str | Path | None = None,
    adapter: str | Path | None = None,
    faces: str | Path | None = None,
    controls: Mapping[str, str] | None = None,
    lcm: str | Path | None = None,
) -> ModelFolder:
    """A model folder from paths as people write them; see `models.generation.layout`.

    Raises:
        BadModel: a part is not there.
        UsageError: a further ControlNet is called like a part of the model.
    """
    from caudal.data.paths import local_path

    for kind in controls or {}:
        if kind in PARTS:
            raise UsageError(
                _("“{kind}” is a part of the model itself, and no further ControlNet.").format(kind=kind),
                _("Give it another name, such as pose, canny or depth."),
            )

    def path(text: str | Path | None) -> Path | None:
        return None if text is None else local_path(str(text), must_exist=False)

    merged = path(lcm)
    if merged is not None and not merged.is_file():
        raise BadModel(
            _("{path} is no file that can be read.").format(path=merged),
            _("Name an LCM adapter (.safetensors) with --lcm-adapter."),
        )
    return find(
        local_path(str(model), must_exist=False),
        path(identity),
        path(adapter),
        path(faces),
        {kind: local_path(where, must_exist=False) for kind, where in (controls or {}).items()},
        merged,
    )


def _models_bytes(model: ModelFolder, engine: FaceEngine) -> int:
    """What a face engine's models take: their files, nearly all of which are weights."""
    folder = model.faces or model.base / "faces"
    if engine.name == "stand_in" or not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.glob("*.onnx"))


def _identity_of(path: str) -> tuple[str, int, int]:
    """Another file under the same name is another face."""
    try:
        stat = Path(path).stat()
    except OSError:
        return (path, 0, 0)
    return (path, stat.st_size, stat.st_mtime_ns)


def _differs(one: GenerationPlan, other: GenerationPlan) -> bool:
    """Whether a session of one plan cannot work for the other."""
    same = ("device", "precision", "decoder_precision", "width", "height", "pictures", "setup")
    return any(getattr(one, name) != getattr(other, name) for name in same)
