"""Laws of targets: what is unknown is not learned from; a batch splits over its samples."""

import pytest
import torch
import torch.nn.functional as F

from caudal.core.errors import UsageError
from caudal.tasks.graph.task import Graph, NodeTruth
from caudal.tasks.sequence.task import Sequence
from caudal.tasks.targets import Target

NAN = float("nan")
BINARY = Target(kind="binary", names=("no", "yes"))
CLASSES = Target(kind="multiclass", names=("a", "b", "c"))
LABELS = Target(kind="multilabel", names=("a", "b", "c"))
NUMBERS = Target(kind="regression", names=("x", "y"), means=(10.0, -1.0), deviations=(2.0, 0.5))
EVERY = pytest.mark.parametrize("target", [BINARY, CLASSES, LABELS, NUMBERS], ids=lambda one: one.kind)


def truths(target: Target, shape: tuple[int, ...], seed: int = 5) -> torch.Tensor:
    """Truths of that many samples, some unknown."""
    draw = torch.Generator().manual_seed(seed)
    if target.kind == "regression":
        known = torch.randn(*shape, len(target.names), generator=draw)
        known = known * torch.tensor(target.deviations) + torch.tensor(target.means)
    elif target.kind == "multilabel":
        known = torch.randint(0, 2, (*shape, len(target.names)), generator=draw).float()
    else:
        known = torch.randint(0, len(target.names), shape, generator=draw)
    lost = torch.rand(known.shape, generator=draw) < 0.3
    return known.masked_fill(lost, NAN if known.is_floating_point() else -1)


@EVERY
@pytest.mark.parametrize("steps", [(), (7,)])
def test_the_loss_of_a_batch_is_that_of_its_parts(target: Target, steps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    task = Sequence(target)
    output = torch.randn(6, *steps, task.outputs())
    truth = truths(target, (6, *steps))
    whole = task.loss(output, truth)
    assert whole.shape == (6,)
    parts = torch.cat([task.loss(output[k : k + 2], truth[k : k + 2]) for k in (0, 2, 4)])
    assert torch.allclose(whole, parts)


@EVERY
def test_nothing_is_learned_from_what_is_unknown(target: Target) -> None:
    torch.manual_seed(0)
    output = torch.randn(5, 4, target.outputs, requires_grad=True)
    truth = truths(target, (5, 4))
    truth[2] = NAN if truth.is_floating_point() else -1
    loss = Sequence(target).loss(output, truth)
    assert loss[2] == 0
    loss.sum().backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    known = torch.isfinite(truth) if truth.is_floating_point() else truth >= 0
    touched = output.grad != 0
    if target.is_wide:
        assert torch.equal(touched, known)
    else:
        assert torch.equal(touched.all(-1), known)
        assert torch.equal(touched.any(-1), known)


@EVERY
def test_padded_steps_do_not_change_the_loss_of_a_sequence(target: Target) -> None:
    torch.manual_seed(0)
    task = Sequence(target)
    output, truth = torch.randn(3, 5, target.outputs), truths(target, (3, 5))
    more = F.pad(output, (0, 0, 0, 4), value=9.0)
    beyond = truth.new_full((3, 4, *truth.shape[2:]), NAN if truth.is_floating_point() else -1)
    assert torch.allclose(task.loss(output, truth), task.loss(more, torch.cat([truth, beyond], 1)))


def test_losses_are_the_ones_of_the_books() -> None:
    torch.manual_seed(0)
    one, three, two = torch.randn(8, 1), torch.randn(8, 3), torch.randn(8, 2)
    yes = torch.randint(0, 2, (8,))
    found = Sequence(BINARY).loss(one, yes)
    expected = F.binary_cross_entropy_with_logits(one[:, 0], yes.float(), reduction="none")
    assert torch.allclose(found, expected)
    classes = torch.randint(0, 3, (8,))
    assert torch.allclose(
        Sequence(CLASSES).loss(three, classes), F.cross_entropy(three, classes, reduction="none")
    )
    labels = torch.randint(0, 2, (8, 3)).float()
    expected = F.binary_cross_entropy_with_logits(three, labels, reduction="none").mean(1)
    assert torch.allclose(Sequence(LABELS).loss(three, labels), expected)
    numbers = torch.randn(8, 2)
    scaled = (numbers - torch.tensor(NUMBERS.means)) / torch.tensor(NUMBERS.deviations)
    assert torch.allclose(Sequence(NUMBERS).loss(two, numbers), (two - scaled).square().mean(1), atol=1e-4)


def test_weights_count_by_the_class_of_the_truth() -> None:
    output, truth = torch.zeros(2, 1), torch.tensor([0, 1])
    plain = Sequence(BINARY).loss(output, truth)
    weighted = Sequence(BINARY.model_copy(update={"weights": (1.0, 3.0)})).loss(output, truth)
    assert torch.allclose(weighted, plain * torch.tensor([1.0, 3.0]))
    heavy = Target(kind="multiclass", names=("a", "b"), weights=(0.5, 2.0))
    assert torch.allclose(
        Graph(heavy).loss(torch.zeros(2, 2), truth),
        F.cross_entropy(torch.zeros(2, 2), truth, reduction="none") * torch.tensor([0.5, 2.0]),
    )


def test_a_truth_of_one_number_may_lack_its_axis() -> None:
    target = Target(kind="regression", names=("x",), means=(0.0,), deviations=(1.0,))
    output = torch.randn(4, 1)
    truth = torch.tensor([1.0, NAN, 0.0, 2.0])
    assert torch.equal(Graph(target).loss(output, truth), Graph(target).loss(output, truth[:, None]))
    steps = torch.randn(2, 3, 1)
    assert Sequence(target).loss(steps, torch.zeros(2, 3)).shape == (2,)


def test_predicted_numbers_are_in_their_own_units() -> None:
    output = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    assert Sequence(NUMBERS).probabilities(output).tolist() == [[10, -1], [12, -2]]
    truth = torch.tensor([[12.0, -2.0]])
    assert float(Sequence(NUMBERS).loss(output[1:], truth)) == pytest.approx(0)


def test_probabilities_of_classes_sum_to_one_and_those_of_labels_stand_alone() -> None:
    output = torch.randn(4, 3)
    assert torch.allclose(Graph(CLASSES).probabilities(output).sum(1), torch.ones(4))
    assert torch.allclose(Graph(LABELS).probabilities(output), output.sigmoid())
    assert Graph(BINARY).probabilities(torch.zeros(2, 1)).tolist() == [[0.5], [0.5]]


@EVERY
def test_the_loss_of_a_graph_is_the_mean_over_its_nodes(target: Target) -> None:
    torch.manual_seed(0)
    task, sizes = Graph(target), [4, 1, 6, 0]
    graph_N = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    output, truth = torch.randn(11, task.outputs()), truths(target, (11,))
    whole = task.loss(output, NodeTruth(truth, graph_N, 4))
    assert whole.shape == (4,)
    assert whole[3] == 0
    each, known = target.loss(output, truth)
    expected = each[5:].sum() / max(1, int(known[5:].sum()))
    assert torch.allclose(whole[2], expected)
    assert torch.equal(task.loss(output, truth), each)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "binary", "names": ("a",)},
        {"kind": "multiclass", "names": ("a",)},
        {"kind": "multilabel", "names": ()},
        {"kind": "regression", "names": ("a",)},
        {"kind": "regression", "names": ("a",), "means": (0.0,), "deviations": (0.0,)},
        {"kind": "binary", "names": ("a", "b"), "weights": (1.0,)},
        {"kind": "multilabel", "names": ("a", "b"), "thresholds": (0.5,)},
        {"kind": "multiclass", "names": ("a", "b"), "thresholds": (0.5, 0.5)},
        {"kind": "ordinal", "names": ("a", "b")},
    ],
)
def test_a_target_that_does_not_hold_together_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Target.make(wrong)


def test_a_target_survives_being_written_down() -> None:
    target = BINARY.model_copy(update={"thresholds": (0.3,), "weights": (1.0, 2.0)})
    assert Target.make(target.model_dump(mode="json")) == target
