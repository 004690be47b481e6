"""Says no before anything is loaded, to what cannot fit whatever is done: by shapes alone.

Mostly in the probe's child, which has torch. What is refused here would be refused by the probe too, after
seconds and with the memory taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import planner, vram
from caudal.memory.cost import static_holders
from caudal.memory.plan import Holder
from caudal.runs.spec import RunSpec
from caudal.runs.work.base import Rehearsal

# The interpreter with torch alone takes more than this everywhere; below it no child is needed to say no.
LEAST_RAM = Bytes(160 * 2**20)
_TRACED_BELOW = 4  # times what is held whatever the step: above, a probe is no risk


def refuse_at_once(spec: RunSpec, rehearsal: Rehearsal, ram: Bytes) -> list[Holder]:
    """Say no before anything is loaded, to what cannot fit whatever is done: by a trace of one sample's step.

    Returns what the host holds of the model whatever is set.

    Raises:
        DoesNotFit: so it is.
        UsageError: patches of a size that the model does not take.
    """

    from caudal.memory.trace import peak_bytes, without_compiler
    from caudal.models import weights
    from caudal.models.anomaly_map import Fitted
    from caudal.models.unfilled import unfilled

    with unfilled():
        config = {**rehearsal.config, **spec.model.config}
        model = weights.build(spec.model.name, rehearsal.inputs, rehearsal.outputs, config)
    _check_patch(model, int(getattr(rehearsal, "patch_px", 0)))
    task = rehearsal.make_task()
    averaged = spec.training.average and not isinstance(model, Fitted)
    static = static_bytes(model, None if averaged else model)
    held_always = {name: held for name, held in static.items() if name != "optimizer"}  # it may lie elsewhere
    if vram.choose(spec.device) != "cpu":
        card = vram.budget_of(spec.vram)
        if sum(held_always.values()) > card:  # of activations it says itself that it has no room
            error = planner.refusal(static_holders(held_always, "vram"), ram, card)
            error.facts["final"] = 1
            raise error
        return []
    least = LEAST_RAM + sum(held_always.values())
    sample = rehearsal.on_meta()
    if sample is not None and least <= ram < _TRACED_BELOW * least:
        x, y = sample

        def trace() -> int:
            shapes = model.to("meta")
            held = [*shapes.parameters(), *shapes.buffers(), x, y]
            with without_compiler():
                return peak_bytes(lambda: _whole_step(task, shapes, x, y), held)

        # Apart, because torch loads what a run never has to work out shapes.
        traced = _in_fork(trace)
        # Gradients are counted already, and half of the numbers may be half as wide.
        least += max(0, traced - static["gradients"]) // 2
    if least > ram:
        holders = [
            Holder(name=_("interpreter and libraries"), bytes=LEAST_RAM),
            *static_holders(held_always),
        ]
        rest = least - planner.total(holders, "ram")
        if rest > 0:
            holders.append(Holder(name=_("activations and workspace"), bytes=Bytes(rest), exact=False))
        error = planner.refusal(holders, ram, None)
        # What holds whatever is set: no smaller patch and no other precision helps.
        error.facts["final"] = int(LEAST_RAM + sum(held_always.values()) > ram)
        raise error
    return static_holders(held_always)


def refuse_loaded(
    ram: Bytes, libraries: Bytes, beside: Bytes, least_arena: Bytes, model: list[Holder]
) -> None:
    """Say no before the model is made, where libraries and what lies beside them leave no room for it.

    `beside` and `least_arena` as in `ProbeRequest`; `model` is what `refuse_at_once` gave.

    Raises:
        DoesNotFit: so it is.
    """
    always = [
        Holder(name=_("interpreter and libraries"), bytes=libraries),
        Holder(name=_("index, files, curves"), bytes=beside),
        *model,
    ]
    holders = [*always, Holder(name=_("samples (arena)"), bytes=least_arena)]
    if planner.total(holders, "ram") > ram:
        error = planner.refusal(holders, ram, None)
        error.facts["always"] = int(planner.total(always, "ram"))  # of smaller patches, too
        raise error


def _check_patch(model: Any, patch_px: int) -> None:
    """Refuse patches whose side is no multiple of the model's."""
    multiple = int(getattr(model, "multiple_px", 1))
    if patch_px % multiple:
        below, above = patch_px // multiple * multiple, -(-patch_px // multiple) * multiple
        raise UsageError(
            _("Patches of {patch} px are no multiple of {multiple} px, which this model needs.").format(
                patch=patch_px, multiple=multiple
            ),
            _("Set data.patch_px to {sides}.").format(
                sides=" / ".join(str(side) for side in (below, above) if side)
            ),
        )


def _in_fork(count: Callable[[], int]) -> int:
    """What `count` gives in a copy of this process, which ends with it; 0 if it fails there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, str(int(count())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return int(answer or 0)


def _whole_step(task: Any, model: Any, x: Any, y: Any) -> None:
    task.loss(model(x), y).sum().backward()


def static_bytes(model: Any, average: Any) -> dict[str, int]:
    """What a run of `model` holds whatever its micro-batch; `average` is the model if there is none."""
    weights = sum(v.numel() * v.element_size() for v in model.state_dict().values())
    learned = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return {
        "weights": weights,
        "averaged weights": 0 if average is model else weights,
        "gradients": learned,
        "optimizer": 2 * learned,
    }
