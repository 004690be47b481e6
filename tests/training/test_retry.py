"""A step that ran out of memory is taken again with the same gradient; other errors are not touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from caudal.core.errors import OutOfMemory
from caudal.data.stream import Batch
from caudal.models.norm import GroupedBatchNorm2d
from caudal.tasks.segmentation.task import Segmentation
from caudal.training import precision
from caudal.training.adamw import AdamW
from caudal.training.retry import ran_out
from caudal.training.step import Stepper

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried 9"),
    MemoryError(),
]


class LyingAllocator(nn.Module):
    """Hands on what it gets, and has no memory for more than `most` samples; in the backward pass too."""

    def __init__(self, most: int, error: BaseException, forward: bool = True) -> None:
        super().__init__()
        self.most, self.error, self.in_forward = most, error, forward
        self.lied = 0

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if len(x_BCHW) > self.most:
            if self.in_forward:
                self.lied += 1
                raise self.error
            x_BCHW.register_hook(self._fail)
        return x_BCHW

    def _fail(self, _gradient: torch.Tensor) -> None:
        self.lied += 1
        raise self.error


def make(micro_batch: int, liar: LyingAllocator, shrunk: Any = lambda *_: None) -> Stepper:
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        GroupedBatchNorm2d(6, 2),
        nn.Dropout(0.3),
        liar,
        nn.Conv2d(6, 2, 1),
    )
    number = precision.choose("cpu", "fp32")

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(batch.x_BHWC[part]).permute(0, 3, 1, 2)
        return x, torch.from_numpy(batch.y_BHW[part])

    return Stepper(
        model, Segmentation(("0", "1")), AdamW(model.parameters(), 1e-3, 0.01), number.scaler(), number,
        prepare, micro_batch, 1.0, smaller=(8, 4, 2), shrunk=shrunk,
    )  # fmt: skip


def batch(seed: int) -> Batch:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(16, 8, 8, 2)).astype(np.float32)
    return Batch(x, (x[..., 0] > 0.3).astype(np.uint8), np.zeros(16, np.int64), np.arange(16), 0.0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("in_forward", [True, False], ids=["forward", "backward"])
def test_a_retried_step_gives_every_bit_of_one_that_had_room(error: BaseException, in_forward: bool) -> None:
    heard: list[tuple[int, int]] = []
    honest = LyingAllocator(16, error)
    liar = LyingAllocator(16, error, in_forward)
    tried = make(16, liar, lambda before, after, _held: heard.append((before, after)))
    roomy = make(16, honest)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for k in range(4):
        if k == 2:  # from here on there is room for four
            liar.most, roomy.micro_batch = 4, 4
        torch.set_rng_state(state)
        first = tried.run(batch(k), 1e-3)
        after_tried = torch.get_rng_state()
        torch.set_rng_state(state)
        assert roomy.run(batch(k), 1e-3) == first
        state = torch.get_rng_state()
        assert torch.equal(state, after_tried)
    assert heard == [(16, 8), (8, 4)]
    assert liar.lied == 2
    for a, b in zip(tried.model.state_dict().values(), roomy.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_retried_gradient_is_that_of_the_whole_batch() -> None:
    liar, honest = LyingAllocator(4, ERRORS[0]), LyingAllocator(16, ERRORS[0])
    parts, whole = make(16, liar), make(16, honest)
    for stepper in (parts, whole):
        stepper.model[2] = nn.Identity()  # dropout draws other numbers in other parts
        stepper.optimizer.step = stepper.optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
        stepper.clip = 1e9
        stepper.run(batch(0), 1e-3)
    ours, wanted = ([w.grad for w in stepper.model.parameters()] for stepper in (parts, whole))
    largest = max(float(grad.abs().max()) for grad in wanted if grad is not None)
    for a, b in zip(ours, wanted, strict=True):
        assert a is not None
        assert b is not None
        # That of a bias before a normalization is zero, up to the rounding of the others.
        assert float((a - b).abs().max()) <= 1e-6 * largest


def test_when_nothing_smaller_is_left_the_run_is_told_and_its_state_is_that_before_the_step() -> None:
    stepper = make(16, LyingAllocator(1, ERRORS[1]))
    before = {name: value.clone() for name, value in stepper.model.state_dict().items()}
    with pytest.raises(OutOfMemory) as caught:
        stepper.run(batch(0), 1e-3)
    assert caught.value.facts == {"micro_batch": 2}
    for name, value in stepper.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in stepper.model.parameters())


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    stepper = make(16, LyingAllocator(1, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="shapes"):
        stepper.run(batch(0), 1e-3)
    assert stepper.micro_batch == 16
    assert not ran_out(ValueError("out of memory"))


def test_a_real_refusal_of_the_allocator_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)


def test_an_update_without_memory_says_that_it_is_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = make(4, LyingAllocator(99, ERRORS[0]))
    monkeypatch.setattr(stepper.optimizer, "step", lambda *_a, **_k: (_ for _ in ()).throw(ERRORS[1]))
    with pytest.raises(OutOfMemory, match="updating") as raised:
        stepper.run(batch(0), 1e-3)
    assert raised.value.facts["half_done"]
