"""`plan`: what a run will hold, before anything of it is loaded. Headers are read; more says `Work.open`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.locations import located
from caudal.data.paths import local_path
from caudal.data.url import Url, address_of
from caudal.memory import allocator, cost, margin, planner
from caudal.memory.cost import ProbeResult
from caudal.memory.levers import LEVERS
from caudal.memory.meters import charged_bytes
from caudal.memory.plan import Holder, LeverSet, Point
from caudal.memory.planner import Lattice
from caudal.memory.vram import DEFAULT_SHARE
from caudal.runs import watched
from caudal.runs.folder import RunFolder
from caudal.runs.machine import processes_here, processors, ram_budget
from caudal.runs.plan import TrainPlan, kind_of
from caudal.runs.probe import ProbeRequest
from caudal.runs.probe_kept import ask
from caudal.runs.spec import RunSpec, micro_batches
from caudal.runs.tiling import FORWARD_SIDES_PX, blended_step
from caudal.runs.training_holders import beside_bytes, margin_holders, training_holders
from caudal.runs.work import WORKS
from caudal.runs.work.base import Tick, Work
from caudal.tasks import TASKS

_MORE_EACH_TIME = MIB  # that whoever plans holds itself


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
        if stored.asked == spec:
            if not watched.must_take_less():
                return stored
            return _plan_below(stored.memory.predicted("ram"), spec, tick)
    folder.check(spec)
    return plan_spec(spec, tick)


def _plan_below(held: Bytes, spec: RunSpec, tick: Tick) -> TrainPlan:
    """A plan that holds less than `held`: by a good step, or else by half of what can be given up.

    What changes numbers is turned only where nothing else takes less.

    Raises:
        DoesNotFit: there is none.
    """
    for may_change in (False, True):
        budget = watched.budget_below(held)
        while True:
            try:
                return plan_spec(spec, tick, budget, may_change)
            except DoesNotFit as error:
                least = Bytes(int(cast(int, error.facts["needed"])) + _MORE_EACH_TIME)
                if error.facts.get("pool", "ram") != "ram":
                    raise
                refused = error
            if not budget < least < held:
                break
            # The very least is slow. A card's next probe may find this to be too little again.
            budget = Bytes(least + (held - least) // 2)
    raise _none_below(held, refused) from None


def _none_below(held: Bytes, error: DoesNotFit) -> DoesNotFit:
    """`error` names what was aimed at, which nobody has asked for."""
    return DoesNotFit(
        _("No plan takes less than the one that was ended, of {held}: the least takes {needed}.").format(
            held=held, needed=Bytes(int(cast(int, error.facts["needed"])))
        ),
        _("End what else takes memory and run it again, or give a smaller patch or model in the spec."),
        **error.facts,
    )


def plan_spec(
    spec: RunSpec,
    tick: Tick = lambda _done, _total: None,
    most: Bytes | None = None,
    may_change: bool = True,
) -> TrainPlan:
    """Plan a spec, to hold at most `most` if it is given; see `plan`. `may_change` what the spec says.

    `most` is what is aimed at. The run may still hold its whole budget: a plan that turns out to take a
    little more than was aimed at is no reason to stop it.
    """
    TASKS.check(spec.task)
    ram = Bytes(ram_budget(spec.ram) // processes_here())
    if most is None or most >= ram:
        return _plan_within(spec, ram, tick, may_change)
    made = _plan_within(spec, most, tick, may_change)
    return made.model_copy(update={"memory": made.memory.model_copy(update={"ram": ram})})


def _plan_within(spec: RunSpec, ram: Bytes, tick: Tick, may_change: bool) -> TrainPlan:
    """Where nothing fits, levers that change numbers are turned, for each of which all is measured again.

    The furthest first: most of what does not fit is refused after two measurements, instead of after all.
    """
    work = open_work(spec, tick)
    try:
        return _plan_work(work, ram).model_copy(update={"asked": spec})
    except DoesNotFit as error:
        refused = error
    if refused.facts.get("final") or not may_change:
        raise refused
    smaller = list(smaller_specs(spec, work, str(refused.facts.get("precision", ""))))
    if not smaller:
        raise refused
    furthest, levers = smaller.pop()
    opened = open_work(furthest, tick)
    if int(cast(int, refused.facts.get("always", 0))) + _least_arena(opened) > ram:
        raise refused
    try:
        made = _plan_work(opened, ram)
    except DoesNotFit as error:
        raise min(refused, error, key=_lack) from None
    for changed, turned in smaller:
        with suppress(DoesNotFit):
            made, levers = _plan_work(open_work(changed, tick), ram), turned
            break
    memory = made.memory.model_copy(update={"levers": (*made.memory.levers, *levers)})
    warnings = (*made.warnings, *(lever.why for lever in levers))
    return made.model_copy(update={"asked": spec, "memory": memory, "warnings": warnings})


def _lack(error: DoesNotFit) -> float:
    """How many times its budget it would take, of whichever pool."""
    needed = int(cast(int, error.facts["needed"]))
    return needed / max(1, int(cast(int, error.facts.get("budget", 1))))


def smaller_specs(
    spec: RunSpec, work: Work, precision: str = ""
) -> Iterator[tuple[RunSpec, tuple[LeverSet, ...]]]:
    """What want of memory may change a spec to, nearest first, each with the levers that did it.

    `precision` is the one that was refused, where that is known.
    """
    values, said = spec.model_dump(), list[LeverSet]()
    names = LEVERS.get("precision")(precision, spec.training.precision).positions()
    for name in names[1:]:
        values |= {"training": {**values["training"], "precision": name}}
        why = _("{precision} instead of fp32, which does not fit; the result changes").format(precision=name)
        said.append(LeverSet(name="precision", value=name, why=why))
        yield RunSpec.make(values), tuple(said)
    wanted = getattr(work.facts, "patch_px", 0)
    sides = LEVERS.get("patch")(wanted, spec.data.patch_px).positions() if wanted else [0]
    for side in sides[1:]:
        values |= {"data": {**values["data"], "patch_px": side}}
        why = _(
            "patches of {side} px instead of {wanted}: no larger ones fit, and the result changes"
        ).format(side=side, wanted=wanted)
        yield RunSpec.make(values), (*said, LeverSet(name="patch", value=str(side), why=why))


def _plan_work(work: Work, ram: Bytes) -> TrainPlan:
    spec = work.spec
    batch, threads = spec.training.batch, max(1, processors() // processes_here())
    micro_batch = micro_batches(spec)
    allocator.trim()  # what whoever calls this freed before is no part of the run
    parent = charged_bytes()
    request = ProbeRequest(
        spec=spec,
        told=work.tell(),
        exact=tuple(s for s in sorted(micro_batch.positions()) if micro_batch.is_exact(s)),
        inexact=tuple(s for s in sorted(micro_batch.positions()) if not micro_batch.is_exact(s)),
        ram=ram,
        threads=threads,
        # What takes least is sought then, and a probe that finds room does not look for it.
        thrifty=watched.must_take_less(),
        beside=beside_bytes(work.index_bytes),
        least_arena=_least_arena(work),
    )
    probe = ask(request)
    vram = None
    if probe.device == "cuda":
        vram = spec.vram or Bytes(probe.device_free * DEFAULT_SHARE)
    kind = kind_of(spec, work.facts.shape, probe.device, probe.precision)
    margins = {"ram": margin.learned(kind)}
    if vram is not None:
        margins["vram"] = margin.learned(margin.on_device(kind))

    scores_between = work.steps > spec.training.validation_steps

    def holders(point: Point) -> list[Holder]:
        arena = work.arena_bytes(point.open_blocks, point.ahead)
        found = training_holders(probe, point, arena, parent, work.index_bytes, scores_between)
        return [*found, *margin_holders(found, margins)]

    def seconds_per_sample(point: Point) -> float:
        return cost.step_seconds(probe, point, batch)

    lattice = Lattice(
        micro_batch,
        LEVERS.get("shuffle_bytes")(work.most_blocks),
        LEVERS.get("prefetch")(work.most_ahead),
        LEVERS.get("threads")(spec.data.threads),
        LEVERS.get("heap")(max(step.heap for step in probe.steps)),
        LEVERS.get("checkpointing")(max(step.recompute for step in probe.steps)),
        LEVERS.get("optimizer_state")(probe.elsewhere_seconds > 0),
    )
    try:
        memory, point = planner.plan_training(ram, vram, holders, lattice, seconds_per_sample)
    except DoesNotFit as error:
        error.facts["precision"] = probe.precision
        raise
    if (tile := _smaller_tile(probe)) is not None:
        memory = memory.model_copy(update={"levers": (*memory.levers, tile)})
    chosen = spec.data.model_copy(update={"threads": point.threads})
    train, held_out = work.members
    return TrainPlan(
        spec=spec.model_copy(update={"data": chosen}),
        asked=spec,
        device=probe.device,
        precision=probe.precision,
        point=point,
        arena=work.arena_bytes(point.open_blocks, point.ahead),
        compute_threads=threads,
        memory=memory,
        probe=probe,
        facts=work.facts,
        seconds=work.steps * batch * seconds_per_sample(point),
        samples_per_second=1 / seconds_per_sample(point),
        steps=work.steps,
        train=train,
        held_out=held_out,
        warnings=(*work.warnings, *_on_cpu(spec, probe)),
        margin=margins["ram"][0],
        margin_vram=margins.get("vram", (0.0, 0))[0],
    )


def _smaller_tile(probe: ProbeResult) -> LeverSet | None:
    """The lever that scoring stands at, if not at rest."""
    if not probe.forwards or probe.forwards[-1].side_px >= FORWARD_SIDES_PX[-1]:
        return None
    why = _("held-out images are scored in smaller tiles, which changes scores along their seams")
    return LeverSet(name="tile", value=str(blended_step(probe.forwards[-1].side_px)), why=why)


def _least_arena(work: Work) -> Bytes:
    blocks = min(LEVERS.get("shuffle_bytes")(work.most_blocks).positions())
    ahead = min(LEVERS.get("prefetch")(work.most_ahead).positions())
    return work.arena_bytes(blocks, ahead)


def open_work(spec: RunSpec, tick: Tick = lambda _done, _total: None) -> Work:
    """The data of a spec, by headers alone; see `Work.open`."""
    family: type[Work] = WORKS.get(spec.task)
    return family.open(spec, tick)


def _on_cpu(spec: RunSpec, probe: ProbeResult) -> list[str]:
    return (
        [_("No GPU can be used here: this runs on the CPU.")] if spec.device != probe.device == "cpu" else []
    )
