"""From what is asked to what is done: ids become paths that are allowed, a spec is written, work is made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from caudal.core.errors import DoesNotFit, UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.runs.spec import RunSpec
from caudal.service import asks
from caudal.service.ids import new_id
from caudal.service.largest import largest, too_large
from caudal.service.problems import Refused, not_found
from caudal.service.roots import Roots
from caudal.service.settings import Settings
from caudal.service.store import Store
from caudal.service.work import (
    EvaluateWork,
    ExplainWork,
    GenerateWork,
    PackWork,
    PredictWork,
    TrainWork,
    Work,
)
from caudal.tasks.generation.request import GenerationRequest
from caudal.tasks.generation.request import lcm as few_steps

_PLAIN = re.compile(r"[\w][\w.+ -]{0,80}")
_DATA_KEYS = frozenset(
    {"target", "samples", "image_px", "classes", "ignored", "patch_px", "density", "open_chunks", "threads"}
)
_MOST_DEPTH = 6
_Other = asks.PredictJob | asks.EvaluateJob | asks.ExplainJob | asks.PackJob | asks.GenerateJob
_RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


class Orders:
    """Makes work. Reads the store, and writes specs into the service's own folder."""

    def __init__(self, store: Store, settings: Settings, roots: Roots) -> None:
        self._store, self._settings, self._roots = store, settings, roots
        self.plans = settings.home / "plans"
        self.plans.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, data: asks.Data) -> Path:
        """Where data are.

        Raises:
            NotFound, Refused: there are none.
        """
        return self._roots.path_of(self._store.datasets.get(data.dataset), data.file or "")

    def check(self, asked: asks.NewJob, needs: Mapping[str, int | None]) -> None:
        """Refuse what is known to be too much; `needs` are the bytes that a plan says, by pool.

        Raises:
            DoesNotFit: no machine of the service is so large.
            UsageError: a longer time limit than the settings allow.
        """
        most = self._settings.longest_seconds
        if asked.limit_seconds is not None and asked.limit_seconds > most:
            raise UsageError(
                _("A limit of {given:.0f} s is more than the service allows: {most:.0f} s.").format(
                    given=asked.limit_seconds, most=most
                ),
                _("Ask for less, or raise longest_seconds in its settings."),
            )
        if not self._store.database.is_sqlite or (most_bytes := largest(self._store)) is None:
            return  # among several machines, a larger one may come
        on_cpu = getattr(asked, "device", None) == "cpu"
        given = {"ram": _size(asked.ram), "vram": None if on_cpu else _size(getattr(asked, "vram", None))}
        ram, vram = (given[pool] if (need := needs.get(pool)) is None else need for pool in ("ram", "vram"))
        if (problem := too_large((ram or 0, vram or 0), most_bytes)) is not None:
            raise DoesNotFit(problem.message, problem.hint)

    def reads(self) -> tuple[str, ...]:
        """The folders that jobs and plans may read data from."""
        return self._roots.folders()

    def work(self, asked: asks.NewJob, job_id: str, budget: Mapping[str, int] | None = None) -> Work:
        """What is to be done, and where it may read; the spec of a training is put into the job's folder.

        `budget` are the bytes that its plan was made for, by pool: the job keeps to them too.

        Raises:
            NotFound, Refused: something that it names is not there.
            UsageError: a wrong spec or size.
        """
        work = self._training(asked, job_id, budget or {}) if asked.verb == "train" else self._work(asked)
        return work.model_copy(update={"reads": self.reads()})

    def specs_in_use(self, specs: Collection[str]) -> set[str]:
        """Those that jobs still need: earlier versions had jobs train by the spec of their plan."""
        return self._store.jobs.specs_in_use(specs)

    def forget(self, job_id: str) -> None:
        """Remove what was written for a job that was not made after all."""
        shutil.rmtree(self._settings.job_folder(job_id), ignore_errors=True)

    def _training(self, asked: asks.TrainJob, job_id: str, budget: Mapping[str, int]) -> TrainWork:
        text = self._text_of(asked)
        folder = self._settings.job_folder(job_id)
        folder.mkdir(parents=True)
        spec = folder / "spec.toml"
        write_whole(spec, lambda part: part.write_text(text, encoding="utf-8"))
        ram, vram = (
            _size(given) or _size(budget.get(pool) or None)
            for pool, given in (("ram", asked.ram), ("vram", asked.vram))
        )
        return TrainWork(spec=spec, ram=ram, vram=vram)

    def _work(self, asked: _Other) -> Work:
        ram = _size(asked.ram)
        if isinstance(asked, asks.PackJob):
            shard = _size(asked.shard)
            return PackWork(
                data=str(self.path(asked.data)),
                samples=asked.samples,
                resize=asked.resize,
                shard=str(int(shard)) if shard else None,
                ram=ram,
            )
        if isinstance(asked, asks.GenerateJob):
            return self._pictures(asked, ram)
        run = self._run(asked.run)
        if isinstance(asked, asks.PredictJob):
            return self._prediction(asked, run, ram)
        masks, labels = self._maybe(asked.masks), self._maybe(asked.labels)
        if isinstance(asked, asks.EvaluateJob):
            return EvaluateWork(
                run=run,
                data=(str(self.path(asked.data)),),
                masks=(masks,) if masks else (),
                labels=labels,
                ram=ram,
                vram=_size(asked.vram),
                device=asked.device,
            )
        return ExplainWork(
            run=run,
            images=str(self.path(asked.images)),
            method=tuple(asked.method),
            target=asked.target,
            masks=masks,
            labels=labels,
            most=asked.most,
            ram=ram,
            device=asked.device,
        )

    def write_spec(self, asked: asks.NewPlan) -> tuple[str, Path]:
        """A spec file for a plan, in a folder of its own; the folder's id, and the file.

        Without a budget it is that of the largest machine that takes jobs.

        Raises:
            NotFound, Refused: data that are not there.
            UsageError: a wrong key or value.
        """
        spec = self._spec(asked)
        if spec.ram is None and (most := largest(self._store)) is not None:
            spec = RunSpec.make(spec.model_dump(mode="json", exclude_none=True) | {"ram": most[0]})
        plan_id = new_id()
        folder = self.plans / plan_id
        folder.mkdir(mode=0o700)
        path = folder / "spec.toml"
        write_whole(path, lambda part: part.write_text(spec.to_toml(), encoding="utf-8"))
        return plan_id, path

    def _text_of(self, asked: asks.TrainJob) -> str:
        if asked.plan is None:
            return self._spec(asked).to_toml()
        try:
            return (self.plans / asked.plan / "spec.toml").read_text(encoding="utf-8")
        except OSError:
            raise not_found(_("There is no such plan.")) from None

    def _spec(self, asked: asks.NewPlan | asks.TrainJob) -> RunSpec:
        assert asked.data is not None
        masks = self._maybe(asked.masks)
        sections = asked.spec.model_dump()
        data = sections.pop("data")
        if unknown := sorted(set(data) - _DATA_KEYS):
            raise UsageError(
                _("“data.{key}” cannot be given here.").format(key=unknown[0]),
                _("Name data by data, masks and labels; of the rest: {keys}.").format(
                    keys=", ".join(sorted(_DATA_KEYS))
                ),
            )
        given = {name: self._checked(name, values) for name, values in sections.items() if values}
        values: dict[str, Any] = {
            "task": asked.task,
            "data": {
                **_plain("data", data),
                "images": [str(self.path(asked.data))],
                "masks": [masks] if masks else [],
                "labels": self._maybe(asked.labels),
            },
            **given,
            "device": asked.device,
            "seed": asked.seed,
            "ram": _size(asked.ram),
            "vram": _size(asked.vram),
        }
        return RunSpec.make({key: value for key, value in values.items() if value is not None})

    def _checked(self, section: str, values: dict[str, Any]) -> dict[str, Any]:
        """Weights from elsewhere are taken from a root alone: `ROOT/folder`, or the run of an earlier job."""
        config = values.get("config") if section == "model" else None
        source = config.get("source") if isinstance(config, dict) else None
        if source is None:
            return _plain(section, values)
        root, _slash, below = str(source).partition("/")
        assert isinstance(config, dict)
        rest = _plain(section, {**values, "config": {**config, "source": None}})
        path = str(self._roots.allowed(root, below))
        return {**rest, "config": {**rest["config"], "source": path}}

    def _prediction(self, asked: asks.PredictJob, run: str, ram: Bytes | None) -> PredictWork:
        inputs = [self.path(data) for data in asked.inputs]
        raster = len(inputs) == 1 and inputs[0].is_file() and inputs[0].suffix.lower() in _RASTERS
        samples = (self._card(run) or {}).get("task") in ("classification", "sequence", "graph")
        return PredictWork(
            run=run,
            inputs=tuple(map(str, inputs)),
            scores=asked.scores,
            d4=asked.d4,
            exact=asked.exact,
            ram=ram,
            vram=_size(asked.vram),
            device=asked.device,
            name="samples.csv" if samples else "map.tif" if raster else "maps",
        )

    def _pictures(self, asked: asks.GenerateJob, ram: Bytes | None) -> GenerateWork:
        shape = set(GenerationRequest.model_fields) & asked.model_fields_set
        request = GenerationRequest.make(asked.model_dump(include=shape, exclude_none=True))
        return GenerateWork(
            request=few_steps(request) if asked.lcm else request,
            model=str(self.path(asked.model)),
            people=tuple(str(self.path(one)) for one in asked.people),
            engine=asked.engine,
            pose=self._maybe(asked.pose),
            identity=self._maybe(asked.identity),
            adapter=self._maybe(asked.adapter),
            faces=self._maybe(asked.faces),
            controls={kind: str(self.path(one)) for kind, one in asked.controls.items()},
            control_pictures={kind: str(self.path(one)) for kind, one in asked.control_pictures.items()},
            lcm=self._maybe(asked.lcm_adapter),
            watermark=asked.watermark,
            metadata=asked.metadata,
            exact=asked.exact,
            ram=ram,
            vram=_size(asked.vram),
            device=asked.device,
        )

    def _card(self, run: str) -> dict[str, Any] | None:
        """What the model says of itself."""
        path = Path(run) / "model" / "model.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _run(self, run_id: str) -> str:
        run = self._store.runs.get(run_id)
        folder = Path(run.folder)
        if not folder.is_relative_to(self._settings.jobs_folder()) or not (folder / "model").is_dir():
            raise Refused(
                409, "no_model", _("That run has no model yet."), _("Wait until its training has ended.")
            )
        return str(folder)

    def _maybe(self, data: asks.Data | None) -> str | None:
        return str(self.path(data)) if data else None


def _size(size: int | str | None) -> Bytes | None:
    return None if size is None else Bytes.parse(size)


def _plain(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """Values that can name no file: numbers, switches, short words."""

    def check(value: Any, depth: int) -> None:
        if isinstance(value, str) and not _PLAIN.fullmatch(value):
            raise _odd(section)
        if isinstance(value, int) and abs(value) > 2**53:
            raise _odd(section)
        if isinstance(value, dict | list):
            if depth > _MOST_DEPTH or len(value) > 1000:
                raise _odd(section)
            for one in [*value, *value.values()] if isinstance(value, dict) else value:
                check(one, depth + 1)

    check(values, 0)
    return {key: value for key, value in values.items() if value is not None}


def _odd(section: str) -> UsageError:
    return UsageError(
        _("“{section}” holds a value that is not taken here.").format(section=section),
        _("Use numbers, true or false, and short words; a path is none."),
    )
