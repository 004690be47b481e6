"""Micro-batches change nothing, checkpoints are whole, the schedule and the average are what they say."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from caudal.core.errors import BadModel
from caudal.data.stream import Batch
from caudal.models.unet import UNet, UNetConfig
from caudal.tasks.segmentation.task import Segmentation
from caudal.training import checkpoint, precision
from caudal.training.adamw import AdamW
from caudal.training.average import Average
from caudal.training.checkpoint import Progress
from caudal.training.schedule import learning_rate
from caudal.training.step import Stepper


def stepper(micro_batch: int, device_precision: str = "fp32") -> Stepper:
    torch.manual_seed(3)
    model = UNet(2, 2, UNetConfig(width=4, depth=1, stem=1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    number = precision.choose("cpu", device_precision)

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(batch.x_BHWC[part]).permute(0, 3, 1, 2)
        return x, torch.from_numpy(batch.y_BHW[part])

    optimizer = AdamW(model.parameters(), 1e-3, 0.01)
    return Stepper(
        model, Segmentation(("0", "1")), optimizer, number.scaler(), number, prepare, micro_batch, 1.0
    )


def batch(seed: int = 0) -> Batch:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(16, 16, 16, 2)).astype(np.float32)
    y = (x[..., 0] > 0.3).astype(np.uint8)
    y[3] = 255
    y[5, :8] = 255
    return Batch(x, y, np.zeros(16, np.int64), np.arange(16), 0.0)


@pytest.mark.parametrize("micro_batch", [4, 8])
def test_a_step_in_micro_batches_is_the_step_of_the_whole_batch(micro_batch: int) -> None:
    whole, parts = stepper(16), stepper(micro_batch)
    for k in range(3):
        assert parts.run(batch(k), 1e-3) == pytest.approx(whole.run(batch(k), 1e-3), rel=1e-5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=2e-5)
    for a, b in zip(whole.model.buffers(), parts.model.buffers(), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss() -> None:
    one = stepper(16, "auto")
    losses = [one.run(batch(), 5e-3) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(step, 200, 1.0, 0.1) for step in range(200)]
    assert np.argmax(rates) in (19, 20)
    assert rates[0] == pytest.approx(0.05)
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[20:]))


def test_the_average_follows_at_first_and_smooths_later() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, 10)
    with torch.no_grad():
        model.weight.fill_(1.0)
        average.update(model, 0)
        assert float(average.model.weight) == 1.0  # type: ignore[arg-type]
        for step in range(1, 200):
            model.weight.fill_(float(step % 2))
            average.update(model, step)
    assert 0.3 < float(average.model.weight) < 0.7  # type: ignore[arg-type]


def test_a_checkpoint_gives_back_every_bit(tmp_path: Path) -> None:
    one = stepper(8)
    average = Average(one.model, 5)
    for k in range(3):
        one.run(batch(k), 1e-3)
        average.update(one.model, k)
    progress = Progress(step=3, best=0.5, best_step=2, waited=1, history=[{"step": 2, "iou": 0.5}])
    event = checkpoint.save(tmp_path, progress, one.model, average.model, one.optimizer)
    two = stepper(8)
    other = Average(two.model, 5)
    assert checkpoint.load(Path(event.path), two.model, other.model, two.optimizer) == progress
    for k in (9, 10):
        one.run(batch(k), 1e-3)
        two.run(batch(k), 1e-3)
    for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(average.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    one = stepper(8)
    one.run(batch(), 1e-3)
    for step in (1, 2, 30, 4000):
        checkpoint.save(tmp_path, Progress(step=step), one.model, one.model, one.optimizer)
    assert [p.name for p in checkpoint.found(tmp_path)] == [
        "step-00000030.safetensors",
        "step-00004000.safetensors",
    ]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    one = stepper(8)
    one.run(batch(), 1e-3)
    event = checkpoint.save(tmp_path, Progress(step=1), one.model, one.model, one.optimizer)
    other = UNet(3, 2, UNetConfig(width=4, depth=1, stem=1))
    with pytest.raises(BadModel):
        checkpoint.load(Path(event.path), other, other, AdamW(other.parameters(), 1e-3, 0.01))


def test_steps_are_those_of_the_library_s_optimizer() -> None:
    torch.manual_seed(0)
    ours = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    theirs = torch.nn.Conv2d(4, 8, 3)
    theirs.load_state_dict(ours.state_dict())
    one = AdamW(ours.parameters(), 1e-2, 0.05)
    two = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.05)
    for _ in range(5):
        x = torch.randn(2, 4, 8, 8)
        for model, optimizer in ((ours, one), (theirs, two)):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_step_does_not_load_a_compiler() -> None:
    code = (
        "from tests.training.test_training import stepper, batch; import sys;"
        "stepper(8).run(batch(), 1e-3); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
