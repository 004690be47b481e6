"""`demo`: the whole way on generated scenes: data, plan, training, a map of a large raster, a report."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caudal.core.errors import UsageError
from caudal.core.events import Sink
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.data.scenes import make_raster, make_scenes
from caudal.runs.folder import RunFolder
from caudal.runs.result import Result
from caudal.runs.spec import RunSpec
from caudal.runs.verbs.plan import make_spec
from caudal.runs.verbs.predict import predict
from caudal.runs.verbs.report import report
from caudal.runs.verbs.train import train

STEPS = 520
"""Steps of the demo: about a minute on two processors, where a real run takes several times as many."""


@dataclass(frozen=True)
class DemoFolder:
    """Names of what a demo leaves behind."""

    path: Path

    @property
    def mark(self) -> Path:
        """What says that the folder is a demo's, and which."""
        return self.path / "demo.json"

    @property
    def scenes(self) -> Path:
        """Images and masks to learn from."""
        return self.path / "scenes"

    @property
    def raster(self) -> Path:
        """The raster to map."""
        return self.path / "county.tif"

    @property
    def map(self) -> Path:
        """Its map."""
        return self.path / "county_mask.tif"

    @property
    def run(self) -> RunFolder:
        """The training run."""
        return RunFolder(self.path / "run")

    def begin(self, settings: dict[str, Any]) -> None:
        """Make the folder, or go on in one of the same settings.

        Raises:
            UsageError: it holds something else, a demo with other settings, or one that is finished.
        """
        if self.mark.is_file():
            if json.loads(self.mark.read_text(encoding="utf-8")) != settings:
                raise UsageError(
                    _("{path} holds a demo with other settings.").format(path=self.path),
                    _("Choose another folder with -o."),
                )
            if self.map.is_file() and self.run.result.is_file():
                raise UsageError(
                    _("The demo in {path} is finished; its report is {report}.").format(
                        path=self.path, report=self.run.report
                    ),
                    _("Choose another folder with -o to run it again."),
                )
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(
                _("{path} exists and is no demo.").format(path=self.path),
                _("Choose another folder with -o."),
            )
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settings, indent=2) + "\n"
        write_whole(self.mark, lambda part: part.write_text(text, encoding="utf-8"))


def demo(
    out: str | Path,
    listeners: Sequence[Sink] = (),
    *,
    ram: str | int = "1GiB",
    device: str | None = None,
    seed: int = 0,
    scenes: int = 24,
    scene_px: int = 512,
    raster_px: tuple[int, int] = (2048, 3072),
    training: dict[str, Any] | None = None,
    stop: threading.Event | None = None,
) -> Result:
    """Generate `scenes` 5-band scenes and a raster, learn to find roofs, map the raster, write a report.

    Everything stays below the folder `out`. An unfinished demo goes on where it stopped. `training` are
    keys of the spec's section of that name; the defaults are those of any run, with fewer steps.

    Raises:
        UsageError: `out` holds something else, or a demo that is finished.
        DoesNotFit: `ram` is too small for this machine's libraries and the model.
        Interrupted: `stop` was set; the same call goes on.
        DiskFull: no space was left.
    """
    began = time.monotonic()
    folder = DemoFolder(Path(out))
    spec = make_spec(
        "segmentation",
        folder.scenes,
        ram=ram,
        device=device,
        seed=seed,
        training={"steps": STEPS, **(training or {})},
    )
    sizes = {"scenes": scenes, "scene_px": scene_px, "raster_px": list(raster_px)}
    folder.begin({**sizes, "seed": seed, "ram": int(spec.ram or 0), "training": training or {}})
    _generate(folder, scenes, scene_px, raster_px, seed)
    trained = _train(folder, spec, listeners, stop)
    mapped = predict(
        folder.run.path, folder.raster, out=folder.map, ram=ram, device=device, listeners=listeners
    )
    return _result(folder, trained, mapped, time.monotonic() - began)


def _generate(folder: DemoFolder, scenes: int, scene_px: int, raster_px: tuple[int, int], seed: int) -> None:
    """Write what is not there yet: the last mask and the raster are whole, or missing."""
    masks = folder.scenes / "masks"
    if not masks.is_dir() or len(list(masks.glob("*.tif"))) < scenes:
        make_scenes(folder.scenes, scenes, (scene_px, scene_px), seed)
    if not folder.raster.is_file():
        make_raster(folder.raster, raster_px, seed)


def _train(
    folder: DemoFolder, spec: RunSpec, listeners: Sequence[Sink], stop: threading.Event | None
) -> Result:
    """Train, or take the result of the run if it is finished."""
    if folder.run.result.is_file():
        result = Result.model_validate(folder.run.read_json(folder.run.result))
        if not folder.run.report.is_file():
            report(folder.run.path)
        return result
    return train(spec, out=folder.run.path, listeners=listeners, stop=stop)


def _result(folder: DemoFolder, trained: Result, mapped: Result, seconds: float) -> Result:
    """Training and prediction as one: the larger of their peaks, the figures of both."""

    def larger(one: dict[str, int] | None, two: dict[str, int] | None) -> dict[str, int]:
        one, two = one or {}, two or {}
        return {pool: max(one.get(pool, 0), two.get(pool, 0)) for pool in ("ram", "vram")}

    return Result(
        verb="demo",
        run=str(folder.run.path),
        output=str(folder.map),
        metrics={**(trained.metrics or {}), **(mapped.metrics or {})},
        budget_bytes=trained.budget_bytes,
        predicted_bytes=larger(trained.predicted_bytes, mapped.predicted_bytes),
        peak_bytes=larger(trained.peak_bytes, mapped.peak_bytes),
        seconds=seconds,
        samples_per_second=trained.samples_per_second,
        stall=trained.stall,
        levers=trained.levers,
        warnings=(*trained.warnings, *mapped.warnings),
    )
