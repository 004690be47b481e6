"""`plan`: what a run will hold, before anything of it is loaded. Headers are read, no pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.locations import located
from caudal.data.paths import local_path
from caudal.data.url import Url, address_of
from caudal.memory import cost, margin, planner
from caudal.memory.cost import ProbeResult
from caudal.memory.levers import LEVERS
from caudal.memory.meters import charged_bytes
from caudal.memory.plan import Holder
from caudal.memory.planner import Lattice, Point
from caudal.memory.vram import DEFAULT_SHARE
from caudal.runs import watched
from caudal.runs.folder import RunFolder
from caudal.runs.machine import processors, ram_budget
from caudal.runs.plan import TrainPlan, kind_of
from caudal.runs.probe import ProbeRequest, ask
from caudal.runs.spec import RunSpec, micro_batches
from caudal.runs.work import WORKS
from caudal.runs.work.base import Tick, Work
from caudal.tasks import TASKS

_PROBES_DIFFER = 1.02  # two of the same model
_OPEN_AND_CACHED = Bytes(8 * MIB)  # file headers, event queues, curves: measured, and small


def make_spec(
    task: str,
    data: str | Path | Sequence[str | Path],
    masks: str | Path | Sequence[str | Path] = (),
    labels: str | Path | None = None,
    **settings: Any,
) -> RunSpec:
    """A spec from what is given on a command line; `settings` are further keys of `RunSpec`.

    Raises:
        UsageError: a wrong key or value.
    """
    images = [data] if isinstance(data, str | Path) else list(data)
    folders = [masks] if isinstance(masks, str | Path) else list(masks)
    values = {
        "task": task,
        "data": {
            "images": [_whole(path) for path in images],
            "masks": [_whole(path) for path in folders],
            "labels": None if labels is None else _whole(labels),
        },
        **{key: value for key, value in settings.items() if value is not None},
    }
    return RunSpec.make(values)


def _whole(path: str | Path) -> str:
    """What names it from any folder."""
    place = located(str(path))
    return address_of(place if isinstance(place, Url) else place.resolve())


def plan(
    task: str | RunSpec,
    data: str | Path | Sequence[str | Path] = (),
    *,
    masks: str | Path | Sequence[str | Path] = (),
    labels: str | Path | None = None,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    seed: int | None = None,
    tick: Tick = lambda _done, _total: None,
) -> TrainPlan:
    """Plan a training run, from a task and its data or from a whole spec.

    Raises:
        DoesNotFit: no plan stays inside the budget; nothing of the data but headers was read.
        DataError: the files do not belong together, or cannot be read.
        DeviceMissing: `device` is not here.
        UsageError: a wrong argument.
    """
    spec = task if isinstance(task, RunSpec) else make_spec(task, data, masks, labels)
    return plan_spec(with_overrides(spec, ram=ram, vram=vram, device=device, seed=seed), tick)


def with_overrides(
    spec: RunSpec,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    seed: int | None = None,
) -> RunSpec:
    """The spec with what was given beside it; `None` leaves its own.

    Raises:
        UsageError: a wrong value.
    """
    given = {"ram": ram, "vram": vram, "device": device, "seed": seed}
    values = {key: value for key, value in given.items() if value is not None}
    return RunSpec.make(spec.model_dump() | values) if values else spec


def resolve(
    out: str | Path,
    spec: RunSpec,
    *,
    ram: str | int | None = None,
    vram: str | int | None = None,
    device: str | None = None,
    seed: int | None = None,
    tick: Tick = lambda _done, _total: None,
) -> TrainPlan:
    """The plan for training `spec` in the folder `out`: the stored one of an unfinished run, or a new one.

    An unfinished run of the same spec and budget goes on with its own plan, so that it goes on exactly.
    """
    spec = with_overrides(spec, ram=ram, vram=vram, device=device, seed=seed)
    folder = RunFolder(local_path(str(out), must_exist=False))
    if folder.plan.is_file() and folder.spec.is_file():
        stored = TrainPlan.model_validate(folder.read_json(folder.plan))
        if stored.spec == spec:
            if not watched.must_take_less():
                return stored
            return _plan_below(stored.memory.predicted("ram"), spec, tick)
    folder.check(spec)
    return plan_spec(spec, tick)


def _plan_below(held: Bytes, spec: RunSpec, tick: Tick) -> TrainPlan:
    """A plan that holds less than `held`: by a good step, or else the least there is.

    Raises:
        DoesNotFit: there is none.
    """
    try:
        return plan_spec(spec, tick, watched.budget_below(held))
    except DoesNotFit as error:
        least = int(cast(int, error.facts["needed"]) * _PROBES_DIFFER)
        if least >= held:
            raise
        return plan_spec(spec, tick, Bytes(least))


def plan_spec(spec: RunSpec, tick: Tick = lambda _done, _total: None, most: Bytes | None = None) -> TrainPlan:
    """Plan a spec, to hold at most `most` if it is given; see `plan`."""
    TASKS.check(spec.task)
    ram = ram_budget(spec.ram)
    ram = ram if most is None else min(ram, most)
    work = open_work(spec, tick)
    batch, threads = spec.training.batch, processors()
    micro_batch = micro_batches(spec)
    parent = charged_bytes()
    probe = ask(
        ProbeRequest(
            spec=spec,
            told=work.tell(),
            exact=tuple(s for s in sorted(micro_batch.positions()) if micro_batch.is_exact(s)),
            inexact=tuple(s for s in sorted(micro_batch.positions()) if not micro_batch.is_exact(s)),
            ram=ram,
            threads=threads,
        )
    )
    shuffle = LEVERS.get("shuffle_bytes")(work.most_blocks)
    vram = None
    if probe.device == "cuda":
        vram = spec.vram or Bytes(probe.device_free * DEFAULT_SHARE)

    share, runs = margin.learned(kind_of(spec, work.facts.shape, probe.device, probe.precision))

    def holders(point: Point) -> list[Holder]:
        arena = work.arena_bytes(point.open_blocks)
        found = training_holders(probe, point, arena, parent, work.index_bytes)
        if not share:
            return found
        more = Bytes(share * planner.total(found, "ram"))
        return [*found, Holder(name=_("margin, learned from {count} runs").format(count=runs), bytes=more)]

    def seconds_per_sample(point: Point) -> float:
        return cost.step_seconds(probe, point.micro_batch, point.thrift)

    thrift = LEVERS.get("thrift")(max(step.thrift for step in probe.steps))
    memory, point = planner.plan_training(
        ram, vram, holders, Lattice(micro_batch, shuffle, thrift), seconds_per_sample
    )
    seconds = work.steps * batch * seconds_per_sample(point)
    train, held_out = work.members
    return TrainPlan(
        spec=spec,
        device=probe.device,
        precision=probe.precision,
        micro_batch=point.micro_batch,
        open_chunks=point.open_blocks,
        thrift=point.thrift,
        arena=work.arena_bytes(point.open_blocks),
        compute_threads=threads,
        memory=memory,
        probe=probe,
        facts=work.facts,
        seconds=seconds,
        samples_per_second=1 / seconds_per_sample(point),
        steps=work.steps,
        train=train,
        held_out=held_out,
        warnings=(*work.warnings, *_on_cpu(spec, probe)),
        margin=share,
    )


def open_work(spec: RunSpec, tick: Tick = lambda _done, _total: None) -> Work:
    """The data of a spec, by headers alone; see `Work.open`."""
    family: type[Work] = WORKS.get(spec.task)
    return family.open(spec, tick)


def _on_cpu(spec: RunSpec, probe: ProbeResult) -> list[str]:
    return (
        [_("No GPU can be used here: this runs on the CPU.")] if spec.device != probe.device == "cpu" else []
    )


def training_holders(
    probe: ProbeResult,
    point: Point,
    arena_bytes: Bytes,
    parent: int,
    index_bytes: int,
) -> list[Holder]:
    """Who holds bytes in the phase of a training run that holds most; the sum is the predicted peak.

    Steps decode and do not score. A score in between finds the arena full and the threads at rest. The last
    one has the machine to itself.
    """
    ram, vram = cost.step_bytes(probe, point.micro_batch, point.thrift)
    on_device = probe.device == "cuda"
    # The probe's own base begins where an interpreter with nothing but the data rooms stands.
    always = [
        Holder(name=_("interpreter and libraries"), bytes=Bytes(max(probe.imported, parent)), exact=False),
        Holder(name=_("index, files, curves"), bytes=Bytes(_OPEN_AND_CACHED + index_bytes), exact=False),
    ]
    if watched.watcher_bytes():
        always.append(Holder(name=_("watcher of the run"), bytes=watched.watcher_bytes()))
    static = cost.static_holders(probe.static, "vram" if on_device else "ram")
    stepping = Holder(name=_("activations and workspace"), bytes=ram, exact=False)
    arena = Holder(name=_("samples (arena)"), bytes=arena_bytes)
    decoding = Holder(name=_("decoding"), bytes=probe.decoding, exact=False)
    beside = Holder(name=_("scoring"), bytes=Bytes(max(0, probe.scoring - ram)), exact=False)
    alone = Holder(name=_("scoring"), bytes=probe.scoring, exact=False)
    phases = (
        [*always, *static, stepping, arena, decoding],
        [*always, *static, stepping, arena, beside],
        [*always, alone],
    )
    most = max(phases, key=lambda phase: planner.total(phase, "ram"))
    if on_device:
        on_card = Holder(name=_("activations and workspace"), bytes=vram, pool="vram", exact=False)
        most = [*(holder for holder in most if holder.pool == "ram"), *static, on_card]
    return most
