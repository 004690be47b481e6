"""A loss or a gradient that is no finite number ends a run in a sentence, with nothing touched by it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.training.test_training import batch, stepper

from caudal.core.errors import Diverged
from caudal.core.events import Events
from caudal.training import checkpoint
from caudal.training.average import Average
from caudal.training.checkpoint import Progress
from caudal.training.finite import Finite
from caudal.training.loop import Loop
from caudal.training.settings import TrainingSettings
from caudal.training.stages import Stages
from caudal.training.step import Stepper
from caudal.training.stop import Stop

NAN, INF = float("nan"), float("inf")


def states(one: Stepper) -> list[torch.Tensor]:
    return [v.clone() for v in (*one.model.parameters(), *one.optimizer.tensors().values())]


def with_gradients(one: Stepper, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    next(one.model.parameters()).register_hook(change)  # type: ignore[no-untyped-call]


def test_a_loss_that_is_no_number_is_said_with_its_step_and_rate_and_the_weights_stay() -> None:
    one = stepper(8)
    one.run(batch(), 1e-3)
    before, broken = states(one), batch(1)
    broken.x_BHWC[3] = NAN
    broken.y_BHW[:] = 0
    with pytest.raises(Diverged, match=r"loss of step 2 is nan.*0\.004.*smaller") as caught:
        one.run(broken, 4e-3, 1)
    assert caught.value.facts == {"step": 2, "rate": 4e-3}
    assert all(torch.equal(a, b) for a, b in zip(before, states(one), strict=True))


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gradient_that_is_not_finite_is_not_learned_from(value: float, precision: str) -> None:
    one = stepper(8, precision)
    one.run(batch(), 1e-3)
    before = states(one)
    with_gradients(one, lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(Diverged, match="gradient of step 2"):
        one.run(batch(1), 1e-3, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, states(one), strict=True))


def scaled() -> Stepper:
    """A step with a scaler, as float16 has it, in numbers that a CPU computes in."""
    one = stepper(8)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    return Stepper(one.model, one.task, one.optimizer, scaler, one.precision, one.prepare, 8, 1.0)


def test_a_scaler_leaves_out_a_few_gradients_that_are_infinite_and_goes_on() -> None:
    one, broken = scaled(), [3]

    def change(gradient: torch.Tensor) -> torch.Tensor:
        broken[0] -= 1
        return gradient * INF if broken[0] >= 0 else gradient

    with_gradients(one, change)
    before = states(one)
    one.run(batch(), 1e-3)  # two parts each
    one.run(batch(), 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, states(one), strict=True))
    one.run(batch(), 1e-3)
    assert not torch.equal(before[0], states(one)[0])
    assert one.scaler.get_scale() == 2.0**14


def test_a_scaler_that_helps_no_more_and_a_loss_that_it_cannot_help_end_the_run() -> None:
    one = scaled()
    with_gradients(one, lambda gradient: gradient * INF)
    for step in range(24):
        one.run(batch(), 1e-3, step)
    with pytest.raises(Diverged, match=r"step 25.*training\.precision"):
        one.run(batch(), 1e-3, 24)
    with pytest.raises(Diverged):
        Finite(scaler=True).check_loss(NAN, 1e-3, 1)


def test_gradients_count_only_in_a_row() -> None:
    looked = Finite(scaler=True)
    for step in range(100):
        looked.check_gradient(INF if step % 2 else 1.0, 1e-3, step)


def test_the_checkpoints_of_a_run_that_diverged_are_those_from_before(tmp_path: Path) -> None:
    one, broken = stepper(16), batch(5)
    broken.x_BHWC[0] = INF
    loop = Loop(
        settings=TrainingSettings(steps=20, batch=16, checkpoint_steps=2, validate_every=20, average=0),
        stepper=one,
        average=Average(one.model, 0),
        progress=Progress(),
        checkpoints=tmp_path,
        events=Events(),
        headline="iou",
        validate=lambda _model: {},
        keep_best=lambda _model, _metrics: None,
        samples_per_epoch=16,
        stop=Stop(threading.Event()),
        stages=Stages(one.model, 0),
    )
    with pytest.raises(Diverged, match="step 6"):
        loop.run([*(batch(k) for k in range(5)), broken, batch(6)])
    assert [path.name for path in checkpoint.found(tmp_path)] == [
        "step-00000002.safetensors",
        "step-00000004.safetensors",
    ]
