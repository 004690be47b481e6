"""Laws of the models over sequences: padding, company and micro-batches change nothing."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caudal.core.errors import UsageError
from caudal.models.encoder import Encoder, EncoderConfig
from caudal.models.ragged import Sequences, filled, step_targets
from caudal.models.recurrent import Recurrent, RecurrentConfig
from caudal.models.temporal import Temporal, TemporalConfig

FEATURES = 3
POOLINGS = ("last", "mean", "mean_max", "attention")

Make = Callable[..., nn.Module]


def recurrent(**config: object) -> nn.Module:
    return Recurrent(FEATURES, 2, RecurrentConfig.make({"width": 8, "layers": 2} | config))


def temporal(**config: object) -> nn.Module:
    return Temporal(FEATURES, 2, TemporalConfig.make({"width": 8, "depth": 3, "kernel": 3} | config))


def encoder(**config: object) -> nn.Module:
    return Encoder(FEATURES, 2, EncoderConfig.make({"dim": 8, "heads": 2, "layers": 2} | config))


CELLS = [{"kind": k, "bidirectional": b} for k in ("lstm", "gru") for b in (True, False)]
VARIANTS = [
    *((recurrent, cells | {"pooling": p}) for cells in CELLS for p in POOLINGS),
    *((temporal, {"causal": c, "pooling": p}) for c in (True, False) for p in POOLINGS),
    (temporal, {"kernel": 4}),
    *((encoder, {"pooling": p}) for p in POOLINGS),
    (encoder, {"kernel": 1}),
]
EVERY = pytest.mark.parametrize(("make", "config"), VARIANTS)
ONE_OF_EACH = pytest.mark.parametrize("make", [recurrent, temporal, encoder])


def ragged(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of all samples, and the row after each one's last."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), FEATURES, generator=draw), torch.tensor(lengths).cumsum(0)


def alone(rows: torch.Tensor, ends: torch.Tensor) -> list[Sequences]:
    return [Sequences.from_rows(rows, ends, slice(k, k + 1)) for k in range(len(ends))]


LENGTHS = [5, 1, 23, 0, 11, 2]


@EVERY
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_sequence_scores_the_same_alone_and_in_a_padded_batch(
    make: Make, config: dict[str, object], per_step: bool, training: bool
) -> None:
    torch.manual_seed(0)
    model = make(**config, per_step=per_step).train(training)
    rows, ends = ragged(LENGTHS)
    with torch.no_grad():
        together = model(Sequences.from_rows(rows, ends))
        for k, one in enumerate(alone(rows, ends)):
            steps = (slice(LENGTHS[k]),) if per_step else ()
            assert torch.allclose(together[k][steps], model(one)[0][steps], atol=1e-5, rtol=1e-5)


@EVERY
def test_the_gradient_of_a_batch_is_that_of_its_micro_batches(make: Make, config: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = make(**config)
    rows, ends = ragged(LENGTHS)

    def gradient(size: int) -> list[torch.Tensor]:
        model.zero_grad()
        for start in range(0, len(LENGTHS), size):
            model(Sequences.from_rows(rows, ends, slice(start, start + size))).square().sum().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    whole = gradient(len(LENGTHS))
    assert len(whole) == len(list(model.parameters()))
    for size in (1, 4):
        for expected, found in zip(whole, gradient(size), strict=True):
            assert torch.allclose(expected, found, atol=1e-4, rtol=1e-4)


@ONE_OF_EACH
def test_what_lies_in_the_padding_changes_nothing(make: Make) -> None:
    torch.manual_seed(0)
    model = make()
    sequences = Sequences.from_rows(*ragged(LENGTHS))
    with torch.no_grad():
        expected = model(sequences)
        rubbish = torch.where(sequences.known()[:, :, None], sequences.x_BTF, 1e3)
        assert torch.allclose(model(Sequences(rubbish, sequences.lengths_B)), expected, atol=1e-5)


def test_a_causal_network_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 30, FEATURES)
    later = x.clone()
    later[:, 12:] = 5
    for causal in (True, False):
        model = temporal(causal=causal, per_step=True)
        before, after = (model(Sequences.of_one_length(one)) for one in (x, later))
        assert torch.equal(before[:, :12], after[:, :12]) is causal


@ONE_OF_EACH
def test_what_is_missing_counts_as_zero_or_is_said(make: Make) -> None:
    torch.manual_seed(0)
    rows, ends = ragged([6, 4])
    broken, zero = rows.clone(), rows.clone()
    broken[2, 1], broken[7, 0], zero[2, 1], zero[7, 0] = float("nan"), float("inf"), 0, 0
    plain, told = make(), make(indicator=True)
    with torch.no_grad():
        assert torch.equal(plain(Sequences.from_rows(broken, ends)), plain(Sequences.from_rows(zero, ends)))
        assert not torch.equal(told(Sequences.from_rows(broken, ends)), told(Sequences.from_rows(zero, ends)))
    told(Sequences.from_rows(broken, ends)).sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in told.parameters() if w.grad is not None)


def test_an_indicator_says_what_was_no_finite_number() -> None:
    x = torch.tensor([[1.0, float("nan")], [float("-inf"), 2.0]])
    assert filled(x, True).tolist() == [[1, 0, 0, 1], [0, 2, 1, 0]]
    assert filled(x, False).tolist() == [[1, 0], [0, 2]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_records_hold_the_rows_of_each_sample_and_zeros_after_them(
    lengths: list[int], data: st.DataObject
) -> None:
    rows, ends = ragged(lengths)
    first = data.draw(st.integers(0, len(lengths) - 1))
    last = data.draw(st.integers(first + 1, len(lengths)))
    found = Sequences.from_rows(rows, ends, slice(first, last))
    assert found.lengths_B.tolist() == lengths[first:last]
    assert found.x_BTF.shape[1] == max(1, *lengths[first:last], 0)
    pieces = torch.split(rows, lengths)[first:last]
    for one, piece in zip(found.x_BTF, pieces, strict=True):
        assert torch.equal(one[: len(piece)], piece)
        assert not one[len(piece) :].any()


def test_one_feature_whole_numbers_and_further_axes_become_float32_features() -> None:
    ends = torch.tensor([2, 5])
    assert Sequences.from_rows(torch.arange(5, dtype=torch.int16), ends).x_BTF.shape == (2, 3, 1)
    deep = Sequences.from_rows(torch.zeros(5, 2, 4, dtype=torch.float64), ends)
    assert (deep.x_BTF.shape, deep.x_BTF.dtype) == ((2, 3, 8), torch.float32)
    assert Sequences.of_one_length(torch.zeros(4, 7)).x_BTF.shape == (4, 7, 1)
    assert Sequences.of_one_length(torch.zeros(4, 7, 2)).lengths_B.tolist() == [7] * 4


def test_targets_of_steps_are_unknown_after_the_end() -> None:
    ends = torch.tensor([1, 4])
    classes = step_targets(torch.tensor([2, 0, 1, 2], dtype=torch.uint8), ends)
    assert classes.tolist() == [[2, -1, -1], [0, 1, 2]]
    numbers = step_targets(torch.tensor([2.0, 0, 1, 2]), ends, slice(0, 1))
    assert numbers.tolist() == [[2]]
    assert step_targets(torch.zeros(4, 2), ends)[0, 1:].isnan().all()


@ONE_OF_EACH
def test_a_setting_that_is_none_is_refused(make: Make) -> None:
    with pytest.raises(UsageError, match="dropout"):
        make(dropout=0.5)


def test_heads_have_to_share_the_width_evenly() -> None:
    with pytest.raises(UsageError, match="heads"):
        EncoderConfig.make({"dim": 8, "heads": 3})


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=9),
    st.sampled_from(POOLINGS),
    st.booleans(),
    st.booleans(),
)
def test_many_steps_at_once_give_what_packed_steps_give(
    lengths: list[int], pooling: str, bidirectional: bool, per_step: bool
) -> None:
    torch.manual_seed(0)
    model = recurrent(pooling=pooling, bidirectional=bidirectional, per_step=per_step)
    assert isinstance(model, Recurrent)
    rows, ends = ragged(lengths)
    batch = Sequences.from_rows(rows, ends)
    known = batch.known() if per_step else torch.ones(len(lengths), dtype=torch.bool)

    def found() -> list[torch.Tensor]:
        model.zero_grad()
        scores = model(batch)[known]
        scores.square().sum().backward()
        return [scores.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    fused = found()
    model._fused = model._packed  # type: ignore[method-assign]
    for one, other in zip(fused, found(), strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def test_a_kernel_sees_few_shapes_whatever_the_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, lstm = set[tuple[int, ...]](), torch.lstm

    def noted(x: torch.Tensor, *rest: object) -> object:
        shapes.add(tuple(x.shape))
        return lstm(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "lstm", noted)
    model = recurrent()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _batch in range(30):
            size = int(torch.randint(1, 33, (), generator=draw))
            lengths = torch.randint(0, 300, (size,), generator=draw).tolist()
            model(Sequences.from_rows(*ragged(lengths)))
    assert 10 < len(shapes) <= 40
