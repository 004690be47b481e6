"""Threads and micro-batches change who computes, never what; a batch too long for memory is cut, alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import caudal
from caudal.data.steps import Rank
from caudal.models import weights
from caudal.runs import assemble
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.runs.work.set_stream import least_ram, scoring_batches, training_batches
from caudal.runs.work.sets import Sets
from caudal.training.step import equal_parts


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of log-normal lengths, the longest of them far longer than the rest."""
    path = tmp_path_factory.mktemp("same") / "series.npz"
    draw = np.random.default_rng(0)
    lengths = np.ceil(draw.lognormal(2.5, 0.8, 128)).astype(np.int64)
    lengths[7] = 400
    rows = draw.normal(size=(int(lengths.sum()), 2)).astype(np.float32)
    np.savez(path, **{"x": rows, "x.ends": np.cumsum(lengths), "y": np.arange(128) % 2})
    return path


def spec(data: Path, threads: int = 2) -> RunSpec:
    return RunSpec.make(
        {
            "task": "sequence",
            "data": {"images": [str(data)], "threads": threads},
            "model": {"name": "recurrent", "config": {"width": 8}},
            "training": {"steps": 6, "batch": 16, "average": 0, "validate_every": 6},
            "device": "cpu",
        }
    )


def losses(plan: TrainPlan, out: Path) -> list[float]:
    caudal.train(plan, out=out)
    events = map(json.loads, (out / "events.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["kind"] == "step_done"]


def test_losses_do_not_depend_on_threads_or_micro_batches(series: Path, tmp_path: Path) -> None:
    plan = caudal.plan(spec(series), ram="1GiB")
    first = losses(plan, tmp_path / "a")
    assert len(first) == 6
    reading = plan.model_copy(update={"spec": spec(series, 5)})
    assert losses(reading, tmp_path / "b") == first
    for micro_batch in (1, 3, plan.spec.training.batch):  # of 3 the parts of a batch are unequal, too
        point = plan.point.model_copy(update={"micro_batch": micro_batch})
        computing = plan.model_copy(update={"compute_threads": 1, "point": point})
        assert computing.micro_batch == micro_batch
        np.testing.assert_allclose(losses(computing, tmp_path / f"{micro_batch}"), first, rtol=1e-4)


def test_a_batch_with_one_long_sequence_is_cut_and_its_gradient_is_that_of_the_whole(series: Path) -> None:
    work = Sets.open(spec(series))
    kind, inputs = work.opened.kind, work.inputs
    prepare = kind.prepare(work.spec, inputs, work.sought, None, "cpu", True, work.samples)
    parts = kind.parts(work.samples, inputs)
    assert parts is not None
    torch.manual_seed(0)
    model = weights.build("recurrent", inputs.count, 1, {"width": 8})
    task = kind.make_task(work.spec, work.sought, None, {})
    with scoring_batches(work.samples, 16, 1) as stream:
        batch = next(iter(stream))  # the long one is the eighth
        found = []
        for cuts in (list(parts(batch, 1)), [slice(0, batch.size)]):
            model.zero_grad()
            rows = []
            for cut in cuts:
                x, y = prepare(batch, cut)
                rows.append(x.x_BTF.shape[0] * x.x_BTF.shape[1])
                (task.loss(model(x), y).sum() / batch.size).backward()
            found.append((rows, [w.grad.clone() for w in model.parameters() if w.grad is not None]))
        (small, one), (whole, other) = found
        assert len(small) > 1
        assert max(small) <= 400  # the rows of its longest sample alone
        assert whole == [16 * 400]
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_cut_by_length_a_step_wastes_less_than_a_tenth(series: Path) -> None:
    work = Sets.open(spec(series))
    kind, inputs = work.opened.kind, work.inputs
    prepare = kind.prepare(work.spec, inputs, work.sought, None, "cpu", True, work.samples)
    parts = kind.parts(work.samples, inputs)
    assert parts is not None
    real = padded = seen = 0
    with scoring_batches(work.samples, 64, 1) as stream:
        for batch in stream:
            for cut in parts(batch, 64):
                x, _y = prepare(batch, cut)
                seen += len(x.lengths_B)
                real += int(x.lengths_B.sum())
                padded += x.x_BTF.shape[0] * x.x_BTF.shape[1]
    assert seen == 128
    assert 1 - real / padded < 0.1


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chains of nodes, of very different lengths, a graph a line."""
    path = tmp_path_factory.mktemp("same") / "molecules.jsonl"
    draw = np.random.default_rng(0)
    with path.open("w") as file:
        for k, nodes in enumerate(np.ceil(draw.lognormal(2, 0.8, 128)).astype(int).tolist()):
            edges = [[i, i + 1] for i in range(nodes - 1)]
            line = {"x": draw.normal(size=(nodes, 3)).round(3).tolist(), "edges": edges, "y": k % 2}
            file.write(json.dumps(line) + "\n")
    return path


@pytest.mark.parametrize(("task", "model"), [("sequence", "recurrent"), ("graph", "graph_conv")])
def test_processes_together_draw_an_epoch_and_take_the_gradient_that_one_would(
    task: str, model: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue("series" if task == "sequence" else "molecules")
    asked = {"task": task, "data": {"images": [str(data)]}, "model": {"name": model}, "device": "cpu"}
    work = Sets.open(RunSpec.make({**asked, "training": {"steps": 6, "batch": 16}}))
    kind, inputs = work.opened.kind, work.inputs
    learned = kind.make_task(work.spec, work.sought, None, {})
    net = assemble.make_model(work.spec, inputs.count, learned.outputs(), "cpu", inputs.config).eval()
    prepare = kind.prepare(work.spec, inputs, work.sought, None, "cpu", True, work.samples)
    parts = kind.parts(work.samples, inputs) or equal_parts
    ram, steps = least_ram(work.train, 16, 2), work.train.drawn // 16

    def epoch(rank: Rank) -> list[tuple[list[int], list[torch.Tensor]]]:
        found = []
        with training_batches(
            work.train, ram, 16, seed=3, threads=2, start=0, stop=steps, rank=rank
        ) as stream:
            for batch in stream:
                numbers = batch.samples.tolist()
                net.zero_grad()
                for cut in parts(batch, 4):
                    x, y = prepare(batch, cut)
                    (learned.loss(net(x), y).sum() / 16).backward()
                found.append((numbers, [w.grad.clone() for w in net.parameters() if w.grad is not None]))
        return found

    alone = epoch(Rank())
    assert len(alone) == steps > 3
    for one, *shares in zip(alone, epoch(Rank(0, 2)), epoch(Rank(1, 2)), strict=True):
        assert [numbers for pair in zip(shares[0][0], shares[1][0], strict=True) for numbers in pair] == one[
            0
        ]
        for whole, first, second in zip(one[1], shares[0][1], shares[1][1], strict=True):
            torch.testing.assert_close(first + second, whole, rtol=1e-4, atol=1e-6)
