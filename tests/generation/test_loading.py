"""Weights come straight to their final place and type, leave when they should, and may stay on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import BadModel, Interrupted
from caudal.core.units import MIB, Bytes
from caudal.inference.generation import streamed as streamed_module
from caudal.inference.generation.pipeline import FacePipeline
from caudal.inference.generation.streamed import Streamed, blocks_of
from caudal.memory.generation.setups import Setup, holders
from caudal.memory.generation.sizes import Place
from caudal.memory.planner import total
from caudal.models.generation.part import FP8, Part, kept_wide, open_part
from caudal.models.tensor_files import SafetensorsFile, open_tensors, write_converted
from caudal.runs.generation import session as sessions_module
from caudal.runs.generation.plan import LIBRARIES
from caudal.runs.generation.session import Session
from caudal.runs.generation.studio import open_model
from tests.cgroups import run_in_group
from tests.generation import big
from tests.generation.sitting import SIDE, close_all, latents, planned, request, session, sessions, sitting

# One tensor at a time.


@given(
    data=st.binary(min_size=0, max_size=200),
    cut=st.integers(0, 200),
)
def test_no_file_whatever_its_bytes_does_more_than_be_refused(
    tmp_path_factory, data: bytes, cut: int
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("hostile") / "x.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    whole = len(header).to_bytes(8, "little") + header + bytes(24)
    path.write_bytes(whole[: cut % len(whole)] + data)
    try:
        opened = SafetensorsFile(path)
    except BadModel:
        return
    assert all(entry.end <= path.stat().st_size for entry in opened.entries.values())
    opened.close()


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,24]}}',
        '{"a":{"dtype":"F32","shape":[-2,-3],"data_offsets":[0,24]}}',
        '{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"b":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}',
        '{"a":{"dtype":"X9","shape":[6],"data_offsets":[0,24]}}',
        '{"a":{"dtype":"F32","shape":[6],"data_offsets":[-24,0]}}',
        "[1,2]",
    ],
    ids=["too large", "negative", "twice the same bytes", "type", "before the data", "no object"],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: str) -> None:
    text = header.encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    with pytest.raises(BadModel):
        SafetensorsFile(tmp_path / "x.safetensors")


@pytest.mark.parametrize("to", [torch.float32, torch.bfloat16, torch.float16, FP8])
def test_every_type_is_what_torch_makes_of_it(tmp_path: Path, to: torch.dtype) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    # More than a scratch, and a size that no scratch divides.
    values = {
        "a": torch.randn(3_000_001),
        "b": torch.randn(3, 5, 7),
        "c": torch.randn(()),
        "d": torch.empty(0, 4),
    }
    save_file(values, tmp_path / "x.safetensors")
    opened = open_tensors(tmp_path / "x.safetensors")
    for name, entry in opened.entries.items():
        target = torch.empty(entry.shape, dtype=to)
        opened.fill(entry, target)
        assert (
            torch.equal(target.view(torch.uint8), values[name].to(to).view(torch.uint8))
            if name != "c"
            else (target.item() == values[name].to(to).item())
        )
        assert torch.equal(opened.mapped(entry), values[name])


def test_a_converted_file_is_read_by_the_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    values = {
        "a": torch.randn(3_000_003),
        "b": torch.arange(7),
        "c": torch.randn(2, 3),
        "d": torch.empty(0, 4),
    }
    save_file(values, tmp_path / "x.safetensors")
    write_converted(tmp_path / "y.safetensors", open_tensors(tmp_path / "x.safetensors"), torch.bfloat16)
    again = load_file(tmp_path / "y.safetensors")
    for name, value in values.items():
        assert torch.equal(again[name], value.to(torch.bfloat16) if value.is_floating_point() else value)


def test_the_adapter_lands_where_diffusers_puts_it(model: Path) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    flat = load_file(model / "adapter.safetensors")
    tree: dict = {"image_proj": {}, "ip_adapter": {}}
    for name, value in flat.items():
        kind, _dot, rest = name.partition(".")
        tree[kind][rest] = value
    stock = UNet2DConditionModel.from_pretrained(model / "unet")
    stock._load_ip_adapter_weights([tree])
    ours = open_part("unet", open_model(model)).load("cpu", torch.float32).state_dict()
    theirs = stock.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_8_bit_storage_spares_what_diffusers_spares(model: Path) -> None:
    from diffusers import UNet2DConditionModel

    stock = UNet2DConditionModel.from_pretrained(model / "unet")
    stock.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
    wide = {name for name, tensor in stock.state_dict().items() if tensor.dtype != FP8}
    ours = kept_wide(open_part("unet", open_model(model)).module)
    assert {name for name in ours if name in stock.state_dict()} == wide


# Every lever gives the same picture.


@pytest.mark.parametrize(
    "setup",
    [
        Setup(encoders="freed"),
        Setup(encoders="freed", offload="disk"),
        Setup(encoders="freed", offload="disk", resident=Bytes(4 * MIB)),
        Setup(encoders="freed", offload="group"),
        Setup(encoders="freed", offload="model"),
    ],
    ids=["freed", "disk", "half on disk", "group", "model"],
)
def test_where_weights_are_changes_no_number(
    model: Path, two_faces, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(streamed_module, "_SMALL_BYTES", 4096)  # the blocks of a tiny model come and go, too
    seat = sitting(two_faces[:1])
    plain = latents(model, request(), seat)
    assert torch.equal(latents(model, request(), seat, setup), plain)
    assert any(opened.streamed_bytes for opened in sessions()) == (setup.offload == "disk")
    close_all()


@pytest.mark.parametrize("offload", ["group lean", "model"])
def test_faces_and_latents_meet_their_weights_on_the_card(
    model: Path, two_faces, offload: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """A device without numbers stands for the card: what is computed there is told by where results are."""
    monkeypatch.setattr(sessions_module, "_offload_groups", lambda *_args, **_more: None)
    monkeypatch.setattr(FacePipeline, "enable_model_cpu_offload", lambda _self, device: None)
    monkeypatch.setattr(FacePipeline, "maybe_free_model_hooks", lambda _self: None)
    wanted, seen = request(), []
    plan = planned(model, wanted, Setup(encoders="freed", offload=offload))  # type: ignore[arg-type]
    with Session(open_model(model), plan.model_copy(update={"device": "meta"})) as opened:
        opened._bring_core()
        assert not opened._parts["unet"].module.conv_in.weight.is_meta
        opened.faces.get = lambda _key, compute: compute()  # type: ignore[method-assign,assignment]
        faces = opened._identity(sitting(two_faces), wanted)
        assert (faces.embeds_BF1E.device.type, faces.tokens_BTC.device.type) == ("meta", "meta")

        def decoder(latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
            seen.append((latents.device.type, latents.dtype))
            return (torch.zeros(1, 3, SIDE, SIDE),)

        vae = opened._parts["vae"].module
        monkeypatch.setattr(vae, "decode", decoder)
        assert len(opened._decoded(torch.zeros(1, 4, SIDE // 2, SIDE // 2, dtype=torch.bfloat16))) == 1
        assert seen == [("meta", torch.float32)]


def test_8_bit_storage_changes_numbers_a_little(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    seat = sitting(two_faces[:1])
    plain = latents(model, request(), seat)
    narrow = latents(model, request(), seat, Setup(encoders="freed", storage="fp8"))
    away = float((narrow - plain).abs().max() / plain.abs().max())
    assert 1e-4 < away < 0.3


@pytest.mark.parametrize("decoding", ["sliced", "tiled 512", "tiled 256"])
def test_slices_and_tiles_larger_than_the_picture_change_nothing(
    model: Path, two_faces, decoding: str
) -> None:  # type: ignore[no-untyped-def]
    def made(setup: Setup) -> list[np.ndarray]:
        wanted = request(count=2, batch=2)
        with session(model, wanted, setup) as opened:
            return [one.x_HWC for one in opened.make(wanted, sitting(two_faces[:1]))]

    for one, other in zip(made(Setup()), made(Setup(decoding=decoding)), strict=True):  # type: ignore[arg-type]
        assert np.abs(one.astype(int) - other).max() <= 1


# What is held.


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return big.write_wide(tmp_path_factory.mktemp("wide") / "model", scale=1)


@pytest.mark.cgroup
def test_loading_takes_the_target_and_no_more_than_64_mib(wide: Path) -> None:
    # The smaller first: a peak is of the whole life of a process.
    command = [sys.executable, "-m", "tests.generation.big", "load", str(wide), "bf16", "fp32"]
    done = run_in_group(command, 2 * 2**30)
    assert done.returncode == 0, done.output
    half, full = json.loads(done.output.strip().splitlines()[-1])
    assert half["target"] > 175 * MIB
    assert full["target"] == 2 * half["target"]
    for told in (half, full):
        assert told["peak"] <= told["target"] + 64 * MIB
        assert told["peak"] > 0.9 * told["target"]  # what is said is what was measured


@pytest.mark.slow
@pytest.mark.cgroup
def test_weights_in_8_bits_take_what_was_planned_under_a_limit_that_full_ones_break(
    wide: Path, face: Path, tmp_path: Path
) -> None:
    wanted = request(steps=1)
    size = planned(wide, wanted).size
    host = Place(device="cpu", libraries=LIBRARIES)
    full, narrow = (
        total(holders(Setup(encoders="freed", storage=way), size, host), "ram") for way in ("full", "fp8")
    )
    assert full - narrow > 250 * MIB
    budget = (narrow + 8 * MIB) // 4096 * 4096
    more = [str(budget), str(face), str(tmp_path / "one.png"), "64", "1", "any"]
    done = run_in_group([sys.executable, "-m", "tests.generation.big", "generate", str(wide), *more], budget)
    assert done.returncode == 0, done.output
    told = json.loads(done.output.strip().splitlines()[-1])
    assert told["levers"]["storage"] == "fp8"
    peak = max(done.peak_charged, told["peak_bytes"]["ram"])
    assert 0.65 * narrow < peak <= told["predicted_bytes"]["ram"] <= budget < full
    assert done.oom_kills == 0


@pytest.mark.slow
@pytest.mark.cgroup
def test_weights_twice_the_free_budget_run_from_disk_inside_it_in_the_time_that_was_said(
    wide: Path, face: Path, tmp_path: Path
) -> None:
    free = big.weights_bytes(wide) // 2
    budget = (LIBRARIES + free) // 4096 * 4096  # whole pages, as the limit of a group is
    out = tmp_path / "one.png"
    more = [str(budget), str(face), str(out), "64", "2", "exact"]
    command = [sys.executable, "-m", "tests.generation.big", "generate", str(wide), *more]
    done = run_in_group(command, budget)
    assert done.returncode == 0, done.output
    told = json.loads(done.output.strip().splitlines()[-1])
    assert told["levers"]["offload"] == "disk"
    assert done.oom_kills == 0
    assert max(done.peak_charged, told["peak_bytes"]["ram"]) <= budget
    assert out.is_file()
    # Within 25 % where nobody else computes (benchmarks/generation_load.py); here others do.
    said, took = (told["metrics"][f"seconds_per_step{end}"] for end in ("_foretold", ""))
    assert took / 3 < said < took * 3


def test_an_emptied_part_holds_nothing_and_loads_again(model: Path) -> None:
    part = open_part("identity", open_model(model))
    first = {name: tensor.clone() for name, tensor in part.load("cpu", torch.float32).state_dict().items()}
    part.empty()
    assert all(tensor.is_meta for tensor in part.tensors().values())
    again = part.load("cpu", torch.float32).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


# Blocks that come and go.


class Stack(torch.nn.Module):
    """Four large layers that are used in any order."""

    def __init__(self, side: int = 600) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(side, side) for _ in range(4))

    def forward(self, x: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
        for number in order:
            x = self.layers[number](x).tanh()
        return x


@pytest.fixture
def stack(tmp_path: Path) -> Part:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(Stack().state_dict(), tmp_path / "stack.safetensors")
    source = open_tensors(tmp_path / "stack.safetensors")
    with torch.device("meta"):
        empty = Stack().requires_grad_(False)
    return Part("stack", empty, {name: (source, entry) for name, entry in source.entries.items()})


def held(part: Part) -> int:
    """Layers whose weights are in memory."""
    return sum(bytes_of(layer.weight) > 600 for layer in part.module.layers)


def bytes_of(tensor: torch.Tensor) -> int:
    """What lies behind it."""
    return 0 if tensor.is_meta else tensor.untyped_storage().nbytes()


def test_whatever_the_order_two_blocks_are_held_and_the_result_is_the_same(stack: Part) -> None:
    torch.manual_seed(0)
    plain, x = Stack(), torch.ones(1, 600)
    streamed = Streamed([stack], "cpu", torch.float32)
    most = []
    for layer in stack.module.layers:
        layer.register_forward_hook(lambda *_: most.append(settled(streamed) + 1))
    with torch.inference_mode():
        for order in ((0, 1, 2, 3), (0, 1, 2, 3), (3, 1, 0, 2), (2, 2, 1, 0), (0, 1, 2, 3)):
            assert torch.equal(stack.module(x, order), plain(x, order))
    assert max(most) == 2
    streamed.close()
    assert held(stack) == 0


def settled(streamed: Streamed) -> int:
    """Blocks that are in memory once nothing is being read; asked where the one at work has just left."""
    for block in streamed.blocks:
        if block.pending is not None:
            block.pending.result()
    return held(streamed.blocks[0].part)


def test_an_order_that_is_handed_over_is_read_ahead_from_the_first_block_on(stack: Part) -> None:
    x, order = torch.ones(1, 600), (2, 0, 1, 3)
    first = Streamed([stack], "cpu", torch.float32)
    with torch.inference_mode():
        stack.module(x, order)
        stack.module(x, order)
    told = first.order
    first.close()
    assert told == {2: 0, 0: 1, 1: 3, 3: 2}
    second = Streamed([stack], "cpu", torch.float32, order=told)
    with torch.inference_mode():
        stack.module.layers[2](x)
    assert settled(second) == 1
    assert bytes_of(stack.module.layers[0].weight) == 600 * 600 * 4
    second.close()


# What a step from disk takes.


def test_a_step_is_rehearsed_once_and_told_before_the_first(
    model: Path, two_faces, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(streamed_module, "_SMALL_BYTES", 4096)
    wanted, seat, heard = request(), sitting(two_faces[:1]), []
    with session(model, wanted, Setup(encoders="freed", offload="disk")) as opened:
        for prompt in ("a man", "a tree", "a man"):
            asked = wanted.model_copy(update={"prompt": prompt})
            list(
                opened.make(
                    asked,
                    seat,
                    tick=lambda done, _total: heard.append(done),
                    foretell=lambda told: heard.append(told),
                )
            )
    told = heard.pop(0)
    assert heard == [1, 2, 3] * 3
    assert told.read_bytes == opened_bytes(model)
    assert 0 < told.in_memory_seconds <= told.from_disk_seconds
    assert told.slowdown == told.from_disk_seconds / told.in_memory_seconds
    assert told.read_bytes_per_second > told.read_bytes / told.from_disk_seconds / 1.5


def opened_bytes(model: Path) -> int:
    """What the blocks of the networks of a step take."""
    return sum(
        block.bytes
        for name in ("unet", "identity")
        for block in blocks_of(open_part(name, open_model(model)), torch.float32)[0]
    )


def test_whoever_stops_during_the_rehearsal_is_heard(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, ticks = request(), []
    with session(model, wanted, Setup(encoders="freed", offload="disk")) as opened:
        with pytest.raises(Interrupted):
            list(opened.make(wanted, sitting(two_faces[:1]), lambda *at: ticks.append(at), lambda: True))
        assert ticks == []
