"""A session makes one picture after another: what it knows is not computed again, and it does not grow."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from caudal.core.errors import BadModel, Interrupted
from caudal.core.units import MIB, Bytes
from caudal.inference.generation.cache import TensorCache
from caudal.memory import allocator
from caudal.memory.generation.setups import Setup
from caudal.memory.meters import charged_bytes
from caudal.runs.generation import beside
from caudal.runs.generation import plan as plans
from caudal.runs.generation.studio import Budgets, Studio, Wish, open_model
from tests.generation.sitting import request, session, sitting


def held() -> int:
    gc.collect()
    allocator.trim()
    return int(charged_bytes())


@pytest.mark.slow
def test_a_hundred_pictures_take_no_more_memory_than_twelve(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(steps=1, guidance=0.0, count=4, batch=4), sitting(two_faces[:1])
    with session(model, wanted) as opened:
        for seed in range(0, 12, 4):
            list(opened.make(wanted.model_copy(update={"seed": seed}), seat))
        before = held()
        for seed in range(0, 100, 4):
            assert len(list(opened.make(wanted.model_copy(update={"seed": seed}), seat))) == 4
        assert held() < before * 1.01
        assert (opened.prompts.hits, opened.faces.hits) == (27, 27)


def test_a_prompt_that_is_known_is_not_encoded_and_its_encoders_stay_away(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(steps=1), sitting(two_faces[:1])
    with session(model, wanted, Setup(encoders="freed")) as opened:
        first = next(opened.make(wanted, seat)).x_HWC
        encoder = opened._parts["text_encoder"]
        assert all(tensor.is_meta for tensor in encoder.tensors().values())
        again = next(opened.make(wanted, seat)).x_HWC
        assert (first == again).all()
        assert opened.prompts.hits == 1
        list(opened.make(wanted.model_copy(update={"prompt": "a tree"}), seat))
        assert all(tensor.is_meta for tensor in encoder.tensors().values())
        assert (next(opened.make(wanted, seat)).x_HWC == first).all()


@pytest.mark.parametrize("setup", [Setup(), Setup(encoders="freed", offload="disk")], ids=["memory", "disk"])
def test_cancelling_ends_within_a_step_and_leaves_nothing_of_the_picture(
    model: Path, two_faces, setup: Setup
) -> None:  # type: ignore[no-untyped-def]
    wanted, seat, steps = request(steps=8), sitting(two_faces[:1]), []
    with session(model, wanted, setup) as opened:
        list(opened.make(wanted.model_copy(update={"steps": 1}), seat))
        tensors = _alive()
        with pytest.raises(Interrupted):
            list(
                opened.make(
                    wanted, seat, lambda done, total: steps.append((done, total)), lambda: len(steps) == 2
                )
            )
        assert steps == [(1, 8), (2, 8)]
        assert _alive() < tensors + 4096  # a schedule of more steps; latents alone would be four times that
        assert len(list(opened.make(wanted, seat))) == 1  # and it goes on working


def _alive() -> int:
    """Bytes of tensors that somebody holds."""
    gc.collect()
    seen = {}
    for one in gc.get_objects():
        if type(one) is torch.Tensor and not one.is_meta and one.layout is torch.strided:
            seen[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(seen.values())


def test_a_session_gives_back_what_it_took(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(steps=1), sitting(two_faces[:1])
    with session(model, wanted) as opened:
        list(opened.make(wanted, seat))
    for part in opened._parts.values():
        assert all(tensor.is_meta for tensor in part.tensors().values())


def test_a_face_of_another_engine_is_refused(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted = request(steps=1)
    with session(model, wanted) as opened, pytest.raises(BadModel, match="128"):
        list(opened.make(wanted, sitting(two_faces[:1, :128])))


def test_a_cache_holds_no_more_than_its_bytes_and_drops_what_was_used_least() -> None:
    cache = TensorCache(3 * 4000)
    computed = []

    def value(key: int) -> torch.Tensor:
        def compute() -> tuple[torch.Tensor, ...]:
            computed.append(key)
            return (torch.full((1000,), float(key)),)

        return cache.get(key, compute)[0]

    for key in (0, 1, 2, 0, 3, 0, 1):
        assert value(key)[0] == key
        assert cache.bytes <= cache.most_bytes
    assert computed == [0, 1, 2, 3, 1]
    assert 0 in cache
    assert 2 not in cache


def test_a_studio_keeps_its_session_while_the_plan_is_the_same(model: Path, face: Path) -> None:
    with Studio(open_model(model), "stand_in", Budgets(device="cpu")) as studio:
        wish = Wish(request(steps=1), (str(face),))
        plan = studio.plan(wish)
        first = next(studio.make(wish, plan))
        kept = studio._session
        more = Wish(request(steps=2, seed=3), (str(face),))
        next(studio.make(more, studio.plan(more)))
        assert studio._session is kept
        larger = Wish(request(steps=1, width=96), (str(face),))
        next(studio.make(larger, studio.plan(larger)))
        assert studio._session is not kept
        assert first.facts["request"]["seed"] == 11
        assert studio.held()["ram"]


def test_a_second_picture_is_planned_as_the_first_however_short_memory_is(
    model: Path, face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the tiny model are 20 MiB: counted twice, they would not fit."""
    monkeypatch.setattr(plans, "LIBRARIES", Bytes(0))  # the weights would hide in what is counted for those

    def wish(seed: int) -> Wish:
        return Wish(request(steps=1, guidance=0.0, seed=seed), (str(face),))

    with Studio(open_model(model), "stand_in", Budgets(device="cpu")) as studio:
        next(studio.make(wish(1), studio.plan(wish(1))))  # all is imported now
    with Studio(open_model(model), "stand_in", Budgets(device="cpu")) as studio:
        ample = studio.plan(wish(1))
    tight = Budgets(ram=int(ample.memory.predicted("ram")) + 8 * MIB, device="cpu")
    with Studio(open_model(model), "stand_in", tight) as studio:
        first = studio.plan(wish(1))
        pictures = [next(studio.make(wish(1), first)).x_HWC]
        kept, said = studio._session, []
        for seed in (2, 1):
            plan = studio.plan(wish(seed))
            made = studio.make(wish(seed), plan, lambda _done, _total: said.append(studio.plan(wish(1))))
            pictures.append(next(made).x_HWC)
            assert plan.setup == first.setup == Setup()
            assert studio._session is kept
    assert [plan.setup for plan in said] == [first.setup] * 2  # asked while a picture is being made, too
    assert (pictures[0] == pictures[2]).all()
    assert (pictures[0] != pictures[1]).any()


def test_what_others_take_of_the_process_later_is_counted(
    model: Path, face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "charged_bytes", lambda: Bytes(700 * MIB))
    with Studio(open_model(model), "stand_in", Budgets(ram="1GiB", device="cpu")) as studio:
        wish = Wish(request(steps=1), (str(face),))
        first = studio.plan(wish)
        next(studio.make(wish, first))
        monkeypatch.setattr(beside, "charged_bytes", lambda: Bytes(first.memory.predicted("ram")))
        assert studio.plan(wish).memory == first.memory
        taken = first.memory.predicted("ram") + 9 * MIB
        monkeypatch.setattr(beside, "charged_bytes", lambda: Bytes(taken))
        for _again in range(2):
            later = studio.plan(wish).memory
            assert later.predicted("ram") - first.memory.predicted("ram") == 9 * MIB
