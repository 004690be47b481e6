"""A plan is made from sizes alone, is exact where it can be, and refuses with the least that would do."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from caudal.cli.main import app
from caudal.core.errors import DoesNotFit, UsageError
from caudal.core.units import MIB, Bytes
from caudal.memory.generation.planner import least, moved_bytes, plan_generation
from caudal.memory.generation.setups import holders, setups
from caudal.memory.generation.sizes import PartSize, PipelineSize, Place, WorkSize
from caudal.memory.planner import total
from caudal.runs.generation.trace import of_folder, pipeline_size, published
from caudal.tasks.generation.request import GenerationRequest
from tests.generation.sitting import planned, request

GIB = 2**30
RAM, VRAM, SIDES = (8, 12.7, 16, 32), (6, 8, 12, 16, 24), (768, 1024, 1280)
CARD = Place(device="cuda", libraries=Bytes(560 * MIB), driver_ram=Bytes(GIB), driver_vram=Bytes(600 * MIB))
HOST = Place(device="cpu", libraries=Bytes(560 * MIB))

TABLE = """
import json, sys, time
from caudal.core.errors import DoesNotFit
from caudal.core.units import Bytes
from caudal.memory.meters import PeakMeter, charged_bytes
from caudal.runs.verbs.generate import plan_generation
from caudal.tasks.generation.request import GenerationRequest
meter, rows = PeakMeter(), []
for side in {sides}:
    for ram in {ram}:
        for vram in {vram}:
            began = time.process_time()
            try:
                made = plan_generation(GenerationRequest(prompt="", width=side, height=side),
                                       ram=int(ram * 2**30), vram=vram * 2**30)
                says = {{"fits": made.memory.predicted_bytes(), "setup": made.setup.model_dump(mode="json")}}
            except DoesNotFit as error:
                says = {{"least": error.facts["least"]}}
            rows.append([side, ram, vram, time.process_time() - began, says])
print(json.dumps({{"rows": rows, "peak": meter.peak()}}))
"""


@pytest.fixture(scope="module")
def sdxl() -> PipelineSize:
    return pipeline_size(published(), 1024, 1024, 1, True, torch.bfloat16, torch.bfloat16)


def test_weights_of_sdxl_are_exact_to_the_byte(sdxl: PipelineSize) -> None:
    unet, adapter, controlnet = 2_567_463_684, 422_765_824, 1_251_014_160
    resampler_and_attention = {part.name: int(part.bytes) for part in sdxl.core}
    assert resampler_and_attention["identity"] == 2 * controlnet
    assert resampler_and_attention["unet"] == 2 * (unet + adapter)
    assert [int(part.bytes) for part in sdxl.encoders] == [2 * 123_060_480, 2 * 694_659_840]
    assert int(sdxl.decoder.bytes) == 2 * 83_653_863


def test_weights_of_a_folder_are_what_its_files_hold(model: Path) -> None:
    from safetensors import safe_open

    size = planned(model, request()).size
    there = 0
    for path in (model / "unet" / "diffusion_pytorch_model.safetensors", model / "adapter.safetensors"):
        with safe_open(path, framework="pt") as file:
            there += sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert {part.name: int(part.bytes) for part in size.core}["unet"] == there


@pytest.mark.slow
def test_a_table_of_budgets_says_in_each_cell_how_it_fits_in_time_and_in_memory() -> None:
    code = TABLE.format(sides=SIDES, ram=RAM, vram=VRAM)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["rows"]) == len(RAM) * len(VRAM) * len(SIDES)
    for side, ram, vram, seconds, says in told["rows"]:
        assert seconds < 20, (side, ram, vram)
        assert ("fits" in says) != ("least" in says)
        if "fits" in says:
            assert says["fits"]["ram"] <= ram * GIB
            assert says["fits"]["vram"] <= vram * GIB
    assert told["peak"] < GIB


def test_what_colab_has_and_the_maintainers_said_is_too_little_fits(sdxl: PipelineSize) -> None:
    plan, setup = plan_generation(sdxl, CARD, Bytes(12.7 * GIB), Bytes(15 * GIB))
    assert setup.offload == "none"
    assert plan.predicted("ram") <= 11.7 * GIB  # a gibibyte to spare
    plan_generation(sdxl, CARD, Bytes(12.7 * GIB), Bytes(8 * GIB))


def test_more_memory_never_takes_a_dearer_lever(sdxl: PipelineSize) -> None:
    order = [setup.model_copy(update={"resident": Bytes(0)}) for setup in setups("cuda")]

    def price(ram: float, vram: float) -> int:
        _plan, setup = plan_generation(sdxl, CARD, Bytes(ram * GIB), Bytes(vram * GIB))
        return order.index(setup.model_copy(update={"resident": Bytes(0)}))

    for (ram, more_ram), vram in itertools.product(itertools.pairwise(RAM), VRAM):
        assert price(more_ram, vram) <= price(ram, vram)
    for ram, (vram, more_vram) in itertools.product(RAM, itertools.pairwise(VRAM)):
        assert price(ram, more_vram) <= price(ram, vram)


def test_two_ways_of_offloading_are_never_stacked() -> None:
    for device in ("cuda", "cpu"):
        for setup in setups(device):
            assert setup.offload in ("none", "group", "group lean", "model", "disk")
            assert device == "cuda" or setup.offload in ("none", "disk")
            assert not (setup.storage == "fp8" and setup.offload in ("model", "disk"))


def test_page_locked_bytes_are_rounded_as_the_allocator_rounds_them() -> None:
    from caudal.runs.generation.trace import _rounded

    assert [_rounded(n) for n in (0, 1, 2, 3, 4096, 4097, 3 * MIB)] == [0, 1, 2, 4, 4096, 8192, 4 * MIB]


def test_the_least_that_is_named_is_enough_and_a_little_less_is_not(sdxl: PipelineSize) -> None:
    for place, vram in ((CARD, Bytes(GIB // 2)), (HOST, None)):
        with pytest.raises(DoesNotFit) as refused:
            plan_generation(sdxl, place, Bytes(GIB // 2), vram)
        least_of = refused.value.facts["least"]
        assert isinstance(least_of, dict)
        enough = Bytes(least_of["ram"]), Bytes(least_of["vram"]) if vram else None
        plan_generation(sdxl, place, *enough)
        with pytest.raises(DoesNotFit):
            plan_generation(sdxl, place, Bytes(enough[0] - 1), enough[1])


sizes = st.integers(0, 10_000).map(lambda n: Bytes(n * MIB))


@st.composite
def pipelines(draw: st.DrawFn) -> PipelineSize:
    def part(name: str) -> PartSize:
        full = draw(st.integers(1, 6000)) * MIB
        block = draw(st.integers(1, max(1, full // MIB // 4))) * MIB
        return PartSize(
            name=name, bytes=Bytes(full), fp8=Bytes(full // 2), pinned=Bytes(full * 1.3),
            pinned_fp8=Bytes(full * 0.65), layer=Bytes(block // 2), block=Bytes(block), always=Bytes(MIB),
        )  # fmt: skip

    decoding = sorted((draw(sizes) for _ in range(4)), reverse=True)
    return PipelineSize(
        encoders=(part("one"), part("two")), core=(part("unet"), part("identity")), decoder=part("vae"),
        work=WorkSize(
            encoding=draw(sizes), step=draw(sizes),
            decoding=dict(zip(("whole", "sliced", "tiled 512", "tiled 256"), decoding, strict=True)),  # type: ignore[arg-type]
        ),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(size=pipelines(), ram=sizes, vram=sizes, place=st.sampled_from([CARD, HOST]))
def test_what_is_planned_fits_and_what_is_refused_has_no_way(
    size: PipelineSize, ram: Bytes, vram: Bytes, place: Place
) -> None:
    room = vram if place.device == "cuda" else None
    try:
        plan, setup = plan_generation(size, place, ram, room)
    except DoesNotFit:
        for one in setups(place.device):
            held = holders(one, size, place)
            assert total(held, "ram") > ram or (room is not None and total(held, "vram") > room)
        return
    assert plan.predicted("ram") <= ram
    assert room is None or plan.predicted("vram") <= room
    if setup.offload == "disk":
        assert moved_bytes(setup, size) <= sum(part.bytes for part in size.core)
    assert least(place.device) == list(setups(place.device))[-1]


def test_the_cli_plans_without_any_file_and_refuses_with_exit_code_3() -> None:
    large = ["--ram", "12GiB", "--vram", "8GiB"]
    done = CliRunner().invoke(app, ["plan", "generation", "1024x1024", *large, "--json"])
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 0
    assert last["predicted_bytes"]["vram"] <= 8 * GIB
    assert last["plan"]["width"] == 1024
    done = CliRunner().invoke(app, ["plan", "generation", "--ram", "1GiB", "--vram", "1GiB", "--json"])
    assert done.exit_code == 3
    assert "--ram" in json.loads(done.stdout.splitlines()[-1])["error"]["hint"]


def test_a_plan_without_files_is_of_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from caudal.cli.generate_words import plan_published
    from caudal.runs.generation import plan as plans

    asked: list[tuple[GenerationRequest, tuple[str, ...], str]] = []
    monkeypatch.setattr(
        plans,
        "make_plan",
        lambda wanted, blueprint, **budgets: asked.append((wanted, blueprint.controls, budgets["vram"])),
    )
    plan_published([], "64GiB", "8GiB", None)
    plan_published(
        ["768x512", "batch=2", "controls=1", "precision=fp32", "guidance=1"], "64GiB", "9GiB", None
    )
    (plain, none, _vram), (more, controls, vram) = asked
    assert (plain.width, plain.guided, plain.rows(), none) == (1024, True, 2, ())
    assert (more.width, more.height, more.precision, more.rows()) == (768, 512, "fp32", 2)
    assert (controls, vram) == (("control 1",), "9GiB")
    for wrong in ("1024x1024 512x512", "colour=red", "batch=many", "controls=-1", "precision=fp7"):
        with pytest.raises(UsageError):
            plan_published(wrong.split(), "64GiB", "64GiB", None)


def test_a_second_plan_of_the_same_size_costs_no_trace(model: Path) -> None:
    wanted = request()
    planned(model, wanted)
    began = time.process_time()
    planned(model, wanted.model_copy(update={"steps": 50}))
    assert time.process_time() - began < 0.5
    assert of_folder.__name__ == "of_folder"
