"""An adapter for few steps is added to the UNet wherever its weights are, as if merged beforehand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from caudal.core.errors import BadModel
from caudal.inference.generation import streamed as streamed_module
from caudal.memory.generation.setups import Setup
from caudal.models.generation.part import FP8, open_part
from caudal.runs.generation.plan import make_plan
from caudal.runs.generation.session import Session
from caudal.runs.generation.studio import open_model
from caudal.runs.generation.trace import of_folder
from tests.generation.sitting import request, sitting
from tests.generation.test_verbs import generate

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
LAYERS = (
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.1.ff.net.0.proj",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
)
RANK, ALPHA = 4, 2.0
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def pairs(model: Path) -> Pairs:
    """Up and down of some layers, a convolution among them."""
    torch.manual_seed(4)
    weights = load_file(model / WEIGHTS)
    found = {}
    for layer in LAYERS:
        shape = weights[f"{layer}.weight"].shape
        ones = (1,) * (len(shape) - 2)
        pair = torch.randn(shape[0], RANK, *ones) * 0.3, torch.randn(RANK, *shape[1:]) * 0.3
        found[layer] = tuple(half.half().float() for half in pair)  # as files hold them
    return found


@pytest.fixture(scope="module")
def merged(model: Path, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with the adapter merged by hand."""
    copy = Path(shutil.copytree(model, tmp_path_factory.mktemp("lcm") / "merged"))
    weights = load_file(copy / WEIGHTS)
    for layer, (up, down) in pairs.items():
        change = torch.einsum("or...,ri->oi", up.flatten(1), down.flatten(1)) * (ALPHA / RANK)
        weights[f"{layer}.weight"] += change.view_as(weights[f"{layer}.weight"])
    save_file(weights, copy / WEIGHTS)
    return copy


def kohya(pairs: Pairs) -> dict[str, torch.Tensor]:
    found = {}
    for layer, (up, down) in pairs.items():
        stem = f"lora_unet_{layer.replace('.', '_')}"
        found |= {f"{stem}.lora_up.weight": up.half(), f"{stem}.lora_down.weight": down.half()}
        found[f"{stem}.alpha"] = torch.tensor(ALPHA).half()
    return found


def peft(pairs: Pairs) -> dict[str, torch.Tensor]:
    """Without an alpha, the rank is."""
    found = {}
    for layer, (up, down) in pairs.items():
        found |= {f"unet.{layer}.lora_B.weight": up * ALPHA / RANK, f"unet.{layer}.lora_A.weight": down}
    return found


@pytest.fixture(scope="module", params=[kohya, peft], ids=["kohya", "peft"])
def adapter(request: pytest.FixtureRequest, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter") / "lcm.safetensors"
    save_file({name: value.contiguous() for name, value in request.param(pairs).items()}, path)
    return path


def weights(folder: Path, lcm: Path | None, dtype: torch.dtype, fp8: bool = False) -> dict[str, torch.Tensor]:
    part = open_part("unet", open_model(folder, lcm=lcm))
    return part.load("cpu", dtype, fp8).state_dict()


@pytest.mark.parametrize(
    ("dtype", "fp8"), [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)],
    ids=["fp32", "bf16", "fp8"],
)  # fmt: skip
def test_weights_are_those_of_the_merged_model(
    model: Path, merged: Path, adapter: Path, dtype: torch.dtype, fp8: bool
) -> None:
    ours, truth = weights(model, adapter, dtype, fp8), weights(merged, None, dtype, fp8)
    plain = weights(model, None, dtype, fp8)
    assert ours.keys() == truth.keys()
    for name, value in truth.items():
        assert ours[name].dtype == value.dtype
        step = {torch.float32: 1e-3, torch.bfloat16: 1e-2, FP8: 0.13}[value.dtype]  # of the type; halves
        assert torch.allclose(ours[name].float(), value.float(), rtol=step, atol=step / 10), name
        changed = name.removesuffix(".weight") in LAYERS
        assert torch.equal(ours[name].float(), plain[name].float()) != changed


def test_the_picture_is_the_merged_models_wherever_weights_are(
    model: Path, merged: Path, pairs: Pairs, two_faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(streamed_module, "_SMALL_BYTES", 4096)
    save_file(peft(pairs), tmp_path / "lcm.safetensors")
    wanted = request(scheduler="lcm", steps=1, guidance=0.0)

    def made(folder: Path, lcm: Path | None, setup: Setup) -> torch.Tensor:
        opened = open_model(folder, lcm=lcm)
        plan = make_plan(wanted, of_folder(opened), device="cpu").model_copy(update={"setup": setup})
        with Session(opened, plan) as session:
            (one,) = session.make(wanted, sitting(two_faces[:1]))
        return torch.from_numpy(one.x_HWC.astype("int32"))

    truth = made(merged, None, Setup())
    for setup in (Setup(), Setup(encoders="freed", offload="disk")):
        assert (made(model, tmp_path / "lcm.safetensors", setup) - truth).abs().max() <= 1
    assert (made(model, None, Setup()) - truth).abs().max() > 8


def test_an_adapter_is_merged_from_the_command_line(
    model: Path, face: Path, pairs: Pairs, tmp_path: Path
) -> None:
    save_file(kohya(pairs), tmp_path / "lcm.safetensors")
    flags = ("--lcm", "--lcm-adapter", tmp_path / "lcm.safetensors")
    code, last, said = generate(model, face, tmp_path / "one.png", *flags)
    assert code == 0, said
    assert last["verb"] == "generate"


def broken(name: str, pairs: Pairs) -> dict[str, torch.Tensor]:
    state = kohya(pairs)
    first = next(iter(state)).rpartition(".lora_up")[0]
    if name == "half":
        del state[f"{first}.lora_down.weight"]
    elif name == "shape":
        state[f"{first}.lora_down.weight"] = torch.zeros(RANK, 7, 3, 3)
    elif name == "rank":
        state[f"{first}.lora_down.weight"] = state[f"{first}.lora_down.weight"][:3].contiguous()
    elif name == "text encoder":
        state["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(1.0)
    elif name == "other kind":
        state = {"hada_w1_a": torch.zeros(3)}
    elif name == "empty":
        state = {}
    return state


@pytest.mark.parametrize("name", ["half", "shape", "rank", "text encoder", "other kind", "empty"])
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_loaded(
    model: Path, pairs: Pairs, tmp_path: Path, name: str
) -> None:
    save_file(broken(name, pairs), tmp_path / "lcm.safetensors")
    with pytest.raises(BadModel, match=r"lcm\.safetensors cannot be merged"):
        open_part("unet", open_model(model, lcm=tmp_path / "lcm.safetensors"))


def test_a_missing_adapter_is_named(model: Path, face: Path, tmp_path: Path) -> None:
    code, last, _said = generate(
        model, face, tmp_path / "one.png", "--lcm-adapter", tmp_path / "no.safetensors"
    )
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert "no.safetensors" in last["error"]["message"]
    code, last, _said = generate(
        model, face, tmp_path / "one.png", "--lcm-adapter", tmp_path / "no.safetensors", "--plan"
    )
    assert (code, last["error"]["code"]) == (4, "bad_model")
