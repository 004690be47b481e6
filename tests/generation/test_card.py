"""What was planned for a card holds on a modelled one: no card is at hand where these tests run.

The real networks' work, traced at the published sizes, is replayed on torch's caching allocator as `card`
models it, under a cap of what the plan promises less the driver's part. It shows what rounding, splitting and
scattering do to the plan's sums. It shows nothing of kernels' workspaces and of the driver: estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caudal.core.units import MIB, Bytes
from caudal.memory.generation.segments import segment_bytes
from caudal.memory.generation.setups import Setup, holders
from caudal.memory.generation.sizes import PipelineSize, Place
from caudal.memory.planner import total
from caudal.models.generation.build import build
from caudal.models.generation.part import Part, kept_wide
from caudal.runs.generation import trace
from tests.generation.card import Card, CardFull, Recording, place, record, replay

DRIVER = Bytes(600 * MIB)
CARD = Place(device="cuda", libraries=Bytes(560 * MIB), driver_vram=DRIVER)
SIDE = 1024


@dataclass
class Traced:
    """The plan's sizes, the work that they were taken from, and the bytes of every tensor of every part."""

    size: PipelineSize
    encoding: list[Recording]
    step: Recording
    decoding: Recording
    tiles: Recording
    tensors: dict[str, list[int]]
    narrow: dict[str, list[int]]


@pytest.fixture(scope="module")
def sdxl() -> Traced:
    made: list[Recording] = []

    def recorded(run, held):  # type: ignore[no-untyped-def]
        made.append(record(run, held))
        return Bytes(made[-1].peak)

    before = trace.peak_bytes
    trace.peak_bytes = recorded
    trace.pipeline_size.cache_clear()
    blueprint = trace.published()
    try:
        size = trace.pipeline_size(blueprint, SIDE, SIDE, 1, True, torch.bfloat16, torch.bfloat16)
    finally:
        trace.peak_bytes = before
    tensors, narrow = {}, {}
    for name, config in blueprint.configs.items():
        part = Part(name, build(name, config, blueprint.adapter if name == "unet" else None))
        wide = kept_wide(part.module)
        counts = {key: tensor.numel() for key, tensor in part.tensors().items()}
        tensors[name] = [2 * count for count in counts.values()]
        narrow[name] = [count * (2 if key in wide else 1) for key, count in counts.items()]
    one, two, step, whole, tile, _small = made
    return Traced(size, [one, two], step, whole, tile, tensors, narrow)


def promised(traced: Traced, setup: Setup) -> int:
    """Bytes of the card that the plan gives to everything but the driver."""
    return int(total(holders(setup, traced.size, CARD), "vram")) - int(DRIVER)


def work(card: Card, traced: Traced, setup: Setup) -> None:
    """A picture of two steps, as a session makes it."""
    core = ("unet", "identity")

    def put(*names: str, fp8: bool = False) -> list:  # type: ignore[type-arg]
        return [block for n in names for block in place(card, (traced.narrow if fp8 else traced.tensors)[n])]

    def away(blocks: list) -> None:  # type: ignore[type-arg]
        for block in blocks:
            card.give(block)
        card.empty_cache()

    encoders = put("text_encoder", "text_encoder_2")
    for one in traced.encoding:
        replay(card, one)
    if setup.encoders == "freed":
        away(encoders)
    moves, factor = {"fp8": ("widen", 2)}.get(setup.storage, ("stay", 1))
    if setup.offload == "group":
        moves = "pass"
    elif setup.offload == "none":
        put(*core, fp8=setup.storage == "fp8")
    if setup.offload != "model":
        put("vae")
    for _step in range(2):
        one = put(*core) if setup.offload == "model" else []
        replay(card, traced.step, moves, factor)  # type: ignore[arg-type]
        away(one)
    if setup.offload == "model":
        put("vae")
    replay(card, traced.decoding)


SETUPS = [
    Setup(),
    Setup(encoders="freed"),
    Setup(encoders="freed", offload="group"),
    Setup(encoders="freed", storage="fp8"),
    Setup(encoders="freed", offload="model"),
]


@pytest.mark.parametrize("setup", SETUPS, ids=["none", "encoders freed", "group", "fp8", "model"])
def test_the_work_of_sdxl_stays_inside_what_was_promised(sdxl: Traced, setup: Setup) -> None:
    cap = promised(sdxl, setup)
    card = Card(cap)
    work(card, sdxl, setup)
    assert card.most_reserved <= cap
    # The promise is no idle one: of what was promised, so much was really in tensors.
    assert card.most_used > 0.6 * cap


@pytest.mark.parametrize("setup", SETUPS[:3], ids=["none", "encoders freed", "group"])
def test_with_less_than_the_tensors_take_the_card_is_full(sdxl: Traced, setup: Setup) -> None:
    card = Card(promised(sdxl, setup))
    work(card, sdxl, setup)
    with pytest.raises(CardFull):
        work(Card(card.most_used - 2 * MIB), sdxl, setup)


def test_a_recording_is_what_the_plan_counted(sdxl: Traced) -> None:
    assert sdxl.step.peak == int(sdxl.size.work.step)
    assert sdxl.decoding.peak == int(sdxl.size.work.decoding["whole"])
    assert sdxl.tiles.peak < sdxl.decoding.peak
    for name, sizes in sdxl.tensors.items():
        part = {part.name: part for part in (*sdxl.size.encoders, *sdxl.size.core, sdxl.size.decoder)}[name]
        assert (sum(sizes), sum(sdxl.narrow[name])) == (int(part.bytes), int(part.fp8))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30 * MIB), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_model_of_the_allocator_loses_nothing(asked: list[tuple[int, int]]) -> None:
    card, held = Card(2**40), []
    for nbytes, give in asked:
        held.append(card.take(nbytes))
        assert held[-1].size >= nbytes
        if give == 0:
            card.give(held.pop(len(held) // 2))
        assert card.used == sum(block.size for block in held) <= card.reserved
    for block in held:
        card.give(block)
    card.empty_cache()
    assert (card.used, card.reserved) == (0, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30 * MIB), max_size=80))
def test_the_plan_counts_the_segments_of_weights_as_the_allocator_takes_them(sizes: list[int]) -> None:
    for few in (sizes, [size % (9 * MIB) for size in sizes]):
        card = Card(2**40)
        place(card, few)
        assert card.reserved <= segment_bytes(few)
    assert card.reserved == segment_bytes(few)  # ends of large segments are reused; here are none


def test_the_model_rounds_as_the_allocator_does() -> None:
    for nbytes, reserved in ((1, 2 * MIB), (MIB, 2 * MIB), (MIB + 1, 20 * MIB), (10 * MIB, 10 * MIB),
                             (11 * MIB, 12 * MIB)):  # fmt: skip
        card = Card(2**40)
        card.take(nbytes)
        assert card.reserved == reserved
