"""What is made is what the published method makes, and its controls do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.generation import tiny
from tests.generation.oracle import Oracle
from tests.generation.sitting import SIDE, latents, request, sitting

TOLERANCE = 1e-5
HALVES = np.zeros((2, SIDE, SIDE), np.float32)
HALVES[0, :, : SIDE // 2] = HALVES[1, :, SIDE // 2 :] = 1


@pytest.fixture(scope="module")
def oracle(model: Path) -> Oracle:
    return Oracle(model)


def expected(oracle: Oracle, wanted, seat, seed: int | None = None, further=None) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return oracle.latents(
        wanted.prompt, seat.faces_FE, seat.guides[0],
        steps=wanted.steps, guidance=wanted.guidance, seed=wanted.seed if seed is None else seed,
        identity=wanted.identity_strength, adapter=wanted.adapter_strength, masks_FHW=seat.masks_FHW,
        region_HW=seat.region_HW, negative=wanted.negative, identity_end=wanted.identity_end, further=further,
    )  # fmt: skip


def furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, against the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("guidance", [5.0, 0.0], ids=["guided", "unguided"])
def test_one_face_is_what_the_published_method_gives(
    model: Path, oracle: Oracle, two_faces, guidance: float
) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(guidance=guidance), sitting(two_faces[:1])
    assert furthest(latents(model, wanted, seat), expected(oracle, wanted, seat)) <= TOLERANCE


def test_a_negative_prompt_is_what_guidance_leads_away_from(model: Path, oracle: Oracle, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(negative="hat"), sitting(two_faces[:1])
    made = latents(model, wanted, seat)
    assert furthest(made, expected(oracle, wanted, seat)) <= TOLERANCE
    assert furthest(made, latents(model, request(), seat)) > 1e-3


def test_the_face_controlnet_rests_after_its_share_of_the_steps(
    model: Path, oracle: Oracle, two_faces
) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(identity_end=0.5), sitting(two_faces[:1])
    made = latents(model, wanted, seat)
    assert furthest(made, expected(oracle, wanted, seat)) <= TOLERANCE
    assert furthest(made, latents(model, request(), seat)) > 1e-3


def test_a_further_controlnet_sees_the_prompt_beside_the_identity(
    model: Path, oracle: Oracle, two_faces, tmp_path_factory: pytest.TempPathFactory
) -> None:  # type: ignore[no-untyped-def]
    net, folder = tiny.controlnet(8).eval(), tmp_path_factory.mktemp("controls") / "depth"
    net.save_pretrained(folder)
    alone, map_HWC = sitting(two_faces[:1]), tiny.portrait(SIDE, SIDE)
    seat = replace(alone, guides=(*alone.guides, map_HWC))
    wanted = request(control_strengths={"depth": 0.7})
    made = latents(model, wanted, seat, controls={"depth": str(folder)})
    assert furthest(made, expected(oracle, wanted, seat, further=(net, map_HWC, 0.7))) <= TOLERANCE
    assert furthest(made, latents(model, request(), alone)) > 1e-3


@pytest.mark.parametrize("guidance", [5.0, 0.0], ids=["guided", "unguided"])
def test_a_face_region_keeps_controlnet_and_adapter_to_the_face(
    model: Path, oracle: Oracle, two_faces, guidance: float
) -> None:  # type: ignore[no-untyped-def]
    wanted = request(guidance=guidance)
    alone = sitting(two_faces[:1])
    seat = replace(alone, masks_FHW=HALVES[:1], region_HW=HALVES[0])
    made = latents(model, wanted, seat)
    assert furthest(made, expected(oracle, wanted, seat)) <= TOLERANCE
    assert furthest(made, latents(model, wanted, replace(alone, masks_FHW=HALVES[:1]))) > 1e-3
    nowhere = replace(alone, masks_FHW=0 * HALVES[:1], region_HW=0 * HALVES[0])
    without = request(guidance=guidance, identity_strength=0.0, adapter_strength=0.0)
    assert furthest(latents(model, wanted, nowhere), latents(model, without, alone)) <= TOLERANCE


def test_two_faces_with_masks_are_what_masked_attention_gives(model: Path, oracle: Oracle, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(), sitting(two_faces, HALVES)
    assert furthest(latents(model, wanted, seat), expected(oracle, wanted, seat)) <= TOLERANCE


def test_a_batch_is_its_pictures_one_by_one(model: Path, oracle: Oracle, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(count=3, batch=2), sitting(two_faces[:1])
    made = latents(model, wanted, seat)
    single = torch.cat([expected(oracle, wanted, seat, seed=wanted.seed + i) for i in range(3)])
    assert made.shape == single.shape
    assert furthest(made, single) <= TOLERANCE


def test_two_faces_in_a_batch_are_its_pictures_one_by_one(model: Path, oracle: Oracle, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(count=2, batch=2), sitting(two_faces, HALVES)
    single = torch.cat([expected(oracle, wanted, seat, seed=wanted.seed + i) for i in range(2)])
    assert furthest(latents(model, wanted, seat), single) <= TOLERANCE


def test_without_masks_faces_are_attended_to_together(model: Path, oracle: Oracle, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted, seat = request(guidance=0.0), sitting(two_faces)
    assert furthest(latents(model, wanted, seat), expected(oracle, wanted, seat)) <= TOLERANCE


def test_strength_nought_is_the_model_without_adapter_and_without_controlnet(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    from diffusers import StableDiffusionXLPipeline

    wanted = request(identity_strength=0.0, adapter_strength=0.0)
    made = latents(model, wanted, sitting(two_faces[:1]))
    parts = {"add_watermarker": False, "local_files_only": True}
    (model / "model_index.json").write_text(INDEX)
    plain = StableDiffusionXLPipeline.from_pretrained(model, **parts)
    plain.set_progress_bar_config(disable=True)
    truth = plain(
        "a man", width=SIDE, height=SIDE, num_inference_steps=3, guidance_scale=5.0, output_type="latent",
        generator=torch.Generator().manual_seed(11),
    ).images  # fmt: skip
    assert furthest(made, truth) <= TOLERANCE


INDEX = """{"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
"scheduler": ["diffusers", "EulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
"tokenizer": ["transformers", "CLIPTokenizer"],
"tokenizer_2": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
"vae": ["diffusers", "AutoencoderKL"]}"""


def test_another_face_is_another_picture(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    wanted = request()
    one, other = (latents(model, wanted, sitting(two_faces[i : i + 1])) for i in range(2))
    assert furthest(one, other) > 1e-2


def test_each_of_the_two_ways_of_a_face_counts(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    seat = sitting(two_faces[:1])
    both = latents(model, request(), seat)
    for left_out in ("identity_strength", "adapter_strength"):
        assert furthest(latents(model, request(**{left_out: 0.0}), seat), both) > 1e-3


def test_a_mask_of_noughts_is_strength_nought(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    masked = latents(model, request(), sitting(two_faces, np.zeros_like(HALVES)))
    without = latents(model, request(adapter_strength=0.0), sitting(two_faces))
    assert furthest(masked, without) <= TOLERANCE


def test_a_face_changes_attention_nowhere_outside_its_mask(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    from tests.generation.sitting import session

    wanted = request()
    with session(model, wanted) as opened:
        opened._bring_core()
        unet = opened._parts["unet"].module
        attention = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2
        torch.manual_seed(0)
        x, text = torch.randn(1, 256, 64), torch.randn(1, 77, 64)
        masks = [torch.from_numpy(HALVES)[None]]
        left = torch.randn(1, 2, 16, 64)
        right = left.clone()
        right[:, 1] = torch.randn(1, 16, 64)
        with torch.no_grad():
            outs = [
                attention(x, encoder_hidden_states=(text, [tokens]), ip_adapter_masks=masks).view(16, 16, -1)
                for tokens in (left, right)
            ]
    assert torch.equal(outs[0][:, :6], outs[1][:, :6])
    assert not torch.allclose(outs[0][:, 10:], outs[1][:, 10:])


@pytest.mark.parametrize("scheduler", ["euler", "heun", "deis", "dpm++", "dpm++ sde", "lcm"])
def test_every_scheduler_makes_a_finite_picture(model: Path, two_faces, scheduler: str) -> None:  # type: ignore[no-untyped-def]
    made = latents(model, request(scheduler=scheduler, guidance=0.0, steps=2), sitting(two_faces[:1]))
    assert torch.isfinite(made).all()


def test_the_same_seed_is_the_same_picture_and_another_is_not(model: Path, two_faces) -> None:  # type: ignore[no-untyped-def]
    seat = sitting(two_faces[:1])
    one, again, other = (latents(model, request(seed=seed), seat) for seed in (4, 4, 5))
    assert torch.equal(one, again)
    assert furthest(one, other) > 1e-2
