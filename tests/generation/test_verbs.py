"""`caudal generate`, `caudal convert` and `caudal plan generation`, as a user calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caudal.cli.main import app
from caudal.inference.generation.provenance import read_facts
from caudal.inference.generation.watermark import certainty, is_marked, mark
from tests.generation import onnx_files, tiny

SMALL = ["--size", "64x64", "--steps", "2", "--engine", "stand_in", "--device", "cpu", "--json"]


def call(*words: str | Path) -> tuple[int, dict, str]:
    """Exit code, the last line as an object, and what was said to people."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    lines = done.stdout.strip().splitlines()
    return done.exit_code, json.loads(lines[-1]) if lines else {}, done.stderr


def pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def smooth() -> np.ndarray:
    """A picture with slow changes, as photographs have."""
    from PIL import Image

    small = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((384, 512)))


def generate(model: Path, face: Path, out: Path, *more: str | Path) -> tuple[int, dict, str]:
    return call(
        "generate", "--model", model, "--identity", face, "--prompt", "a man", "-o", out, *SMALL, *more
    )


@pytest.fixture(scope="module")
def picture(model: Path, face: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    (model / "README.md").write_text("---\nlicense: openrail++\n---\n")
    out = tmp_path_factory.mktemp("made") / "one.png"
    code, last, said = generate(model, face, out)
    assert code == 0, said
    return out, last, said


def test_a_picture_comes_with_its_size_and_what_made_it(picture: tuple[Path, dict, str]) -> None:
    from PIL import Image

    out, last, _said = picture
    with Image.open(out) as image:
        assert image.size == (64, 64)
        assert image.text["DigitalSourceType"].endswith("trainedAlgorithmicMedia")
    facts = read_facts(out)
    assert facts is not None
    assert facts["request"]["prompt"] == "a man"
    assert facts["licences"]["model"] == "openrail++"
    assert last["output"] == str(out)
    assert any("no room for the invisible mark" in text for text in last["warnings"])


def test_the_peak_is_what_was_predicted_or_less(picture: tuple[Path, dict, str]) -> None:
    _out, last, _said = picture
    assert last["peak_bytes"]["ram"] <= last["budget_bytes"]["ram"]
    assert last["levers"] == {"encoders": "kept", "offload": "none", "storage": "full", "decoder": "whole"}


def test_consent_and_the_licence_of_every_part_are_said(picture: tuple[Path, dict, str]) -> None:
    said = " ".join(picture[2].split())
    for words in ("consent", "openrail++", "stand-in", "identity", "adapter", "predicted peak"):
        assert words in said


def test_mark_and_facts_are_left_out_only_when_asked(model: Path, face: Path, tmp_path: Path) -> None:
    from caudal.runs.verbs.generate import write

    out = tmp_path / "bare.png"
    code, last, _said = generate(model, face, out, "--no-watermark", "--no-metadata")
    assert code == 0
    assert read_facts(out) is None
    assert not any("mark" in text for text in last["warnings"])
    for watermark in (True, False):
        write(out, smooth(), {"request": {}}, watermark, True)
        assert is_marked(pixels(out)) is watermark
        assert read_facts(out) == {"request": {}}


def test_several_pictures_are_named_by_their_seeds(model: Path, face: Path, tmp_path: Path) -> None:
    code, last, _said = generate(
        model, face, tmp_path / "many", "--count", "3", "--batch", "2", "--seed", "5"
    )
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["5.png", "6.png", "7.png"]
    assert last["metrics"]["pictures"] == 3


def test_a_folder_of_face_models_is_used_without_being_asked_for(
    model: Path, face: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    faces = tmp_path / "faces"
    faces.mkdir()
    onnx_files.write_detector(faces / "scrfd_10g_bnkps.onnx", 64, [(16, 10, 0, 0.9)])
    onnx_files.write_recognizer(faces / "glintr100.onnx")
    code, last, said = generate(model, face, tmp_path / "one.png", "--engine", "onnx", "--faces", faces)
    assert code == 0, said
    facts = read_facts(tmp_path / "one.png")
    assert facts is not None
    assert facts["face_engine"] == "onnx"
    assert "non-commercial" in " ".join(said.split())
    sface = tmp_path / "sface"
    sface.mkdir()
    onnx_files.write_yunet(sface / "face_detection_yunet_2026may.onnx")
    onnx_files.write_sface(sface / "face_recognition_sface_2021dec.onnx")
    red = save(tmp_path / "red.png", np.full((96, 96, 3), (255, 0, 0), np.uint8))
    code, last, said = generate(model, red, tmp_path / "two.png", "--engine", "opencv", "--faces", sface)
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert "128" in last["error"]["message"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--lcm",),
        ("--scheduler", "euler", "--negative", "hat"),
        ("--precision", "bf16"),
    ],
    ids=["lcm", "scheduler", "bf16"],
)
def test_every_way_of_asking_works(model: Path, face: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert generate(model, face, tmp_path / "one.png", *flags)[0] == 0


def test_a_style_puts_its_words_around_the_prompt_and_against_the_picture() -> None:
    from caudal.core.errors import UsageError
    from caudal.tasks.generation.styles import STYLES, styled

    for name, style in STYLES.items():
        prompt, negative = styled(name, "a {man}", "hat")
        assert prompt == style.template.replace("{prompt}", "a {man}")
        assert negative.startswith("hat")
        assert negative.endswith(style.against)
    with pytest.raises(UsageError, match="baroque"):
        styled("baroque", "", "")


def test_further_controlnets_stand_beside_the_identity(model: Path, face: Path, tmp_path: Path) -> None:
    for kind in ("canny", "depth"):
        tiny.controlnet(8).save_pretrained(tmp_path / kind)
    flags = ["--control", f"canny={tmp_path / 'canny'}", "--control", f"depth={tmp_path / 'depth'}"]
    code, last, _said = generate(model, face, tmp_path / "one.png", *flags)
    assert (code, last["error"]["code"]) == (2, "usage")
    assert "--control-picture depth=" in last["error"]["hint"]
    flags += ["--control-picture", f"depth={face}", "--control-strength", "canny=0.9"]
    assert generate(model, face, tmp_path / "one.png", *flags)[0] == 0


def test_two_people_take_the_places_of_a_pose_picture(model: Path, face: Path, tmp_path: Path) -> None:
    pose = tiny.save_picture(tmp_path / "two.png", tiny.portrait(160, 96, faces=2))
    two = ["--identity", face]
    assert generate(model, face, tmp_path / "one.png", *two, "--pose", pose)[0] == 0
    code, last, _said = generate(model, face, tmp_path / "one.png", *two)
    assert (code, last["error"]["code"]) == (2, "usage")
    code, last, _said = generate(model, face, tmp_path / "one.png", *two, "--pose", face)
    assert (code, last["error"]["code"]) == (4, "bad_values")


def test_a_plan_of_a_model_loads_nothing(model: Path, face: Path, tmp_path: Path) -> None:
    code, last, _said = generate(model, face, tmp_path / "one.png", "--plan")
    assert code == 0
    assert last["plan"]["width"] == 64
    assert not (tmp_path / "one.png").exists()


def test_what_cannot_fit_is_refused_with_the_least(model: Path, face: Path, tmp_path: Path) -> None:
    code, last, _said = generate(model, face, tmp_path / "one.png", "--ram", "100MiB")
    assert (code, last["error"]["code"]) == (3, "does_not_fit")
    assert "--ram" in last["error"]["hint"]


# Bad input.


def save(path: Path, x_HWC: np.ndarray, **options: object) -> Path:
    from PIL import Image

    Image.fromarray(x_HWC).save(path, **options)
    return path


def test_no_face_is_bad_data(model: Path, tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.png", np.zeros((64, 64, 3), np.uint8))
    code, last, _said = generate(model, empty, tmp_path / "one.png")
    assert (code, last["error"]["code"]) == (4, "bad_values")


def test_many_faces_are_said_and_the_largest_is_taken(model: Path, tmp_path: Path) -> None:
    crowd = save(tmp_path / "crowd.png", tiny.portrait(200, 90, faces=3))
    code, last, _said = generate(model, crowd, tmp_path / "one.png")
    assert code == 0
    assert any("3 faces" in text for text in last["warnings"])


def test_a_pose_picture_with_more_faces_than_people_is_said(model: Path, face: Path, tmp_path: Path) -> None:
    pose = tiny.save_picture(tmp_path / "two.png", tiny.portrait(160, 96, faces=2))
    code, last, _said = generate(model, face, tmp_path / "one.png", "--pose", pose)
    assert code == 0
    assert any("two.png shows 2 faces, and 1 people" in text for text in last["warnings"])


def test_a_face_region_is_told_in_the_picture_and_changes_it(
    model: Path, face: Path, tmp_path: Path, picture: tuple[Path, dict, str]
) -> None:
    out = tmp_path / "one.png"
    assert generate(model, face, out, "--face-region", "--identity-end", "0.5")[0] == 0
    facts = read_facts(out)
    assert facts is not None
    assert (facts["request"]["face_region"], facts["request"]["identity_end"]) == (True, 0.5)
    assert not np.array_equal(pixels(out), pixels(picture[0]))


def test_a_place_that_cannot_be_written_is_a_usage_error_from_python_too(
    model: Path, face: Path, tmp_path: Path
) -> None:
    from caudal.core.errors import UsageError
    from caudal.runs.verbs.generate import generate as run
    from caudal.tasks.generation.request import GenerationRequest

    (tmp_path / "file").write_text("")
    wanted = GenerationRequest(prompt="a man", count=2)
    for place in (tmp_path / "file", tmp_path / "file" / "within", Path("/proc/caudal")):
        with pytest.raises(UsageError, match="Nothing can be written"):
            run(wanted, model=model, people=face, out=place, engine="stand_in", device="cpu")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        run(GenerationRequest(prompt=""), model=model, people=face, out=tmp_path / "folder.png")


def test_alpha_is_left_out_and_said(model: Path, tmp_path: Path) -> None:
    x_HWC = tiny.portrait()
    glass = save(tmp_path / "glass.png", np.dstack([x_HWC, np.full(x_HWC.shape[:2], 9, np.uint8)]))
    code, last, _said = generate(model, glass, tmp_path / "one.png")
    assert code == 0
    assert any("Transparency" in text for text in last["warnings"])


def test_a_face_is_found_in_a_picture_that_lies_on_its_side(model: Path, tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    lying = save(tmp_path / "turned.jpg", np.rot90(tiny.portrait(80, 120)).copy(), exif=exif, quality=95)
    code, _last, said = generate(model, lying, tmp_path / "one.png", "--plan")
    assert code == 0, said
    from caudal.models.generation.faces.stand_in import StandIn
    from caudal.runs.generation.pictures import read_picture

    (found,) = StandIn().detect(read_picture(lying, 2**30).x_HWC)
    left, top, right, bottom = found.box
    assert bottom - top > 1.1 * (right - left)  # it stands


def test_a_picture_is_made_of_a_face_in_grey(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx_files.write_detector(tmp_path / "scrfd_10g_bnkps.onnx", 64, [(16, 10, 0, 0.9)])
    onnx_files.write_recognizer(tmp_path / "glintr100.onnx")
    grey = save(tmp_path / "grey.png", tiny.portrait()[:, :, 0])
    out = tmp_path / "one.png"
    code, _last, said = generate(model, grey, out, "--engine", "onnx", "--faces", tmp_path)
    assert code == 0, said
    assert pixels(out).shape == (64, 64, 3)


def test_a_grey_picture_is_read(tmp_path: Path) -> None:
    from caudal.runs.generation.pictures import read_picture

    grey = save(tmp_path / "grey.png", tiny.portrait()[:, :, 0])
    x_HWC = read_picture(grey, 2**30).x_HWC
    assert x_HWC.shape == (96, 96, 3)
    assert np.array_equal(x_HWC[..., 0], x_HWC[..., 2])


def test_a_picture_on_its_side_stands_up(tmp_path: Path) -> None:
    from PIL import Image

    from caudal.runs.generation.pictures import read_picture

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path / "turned.jpg", tiny.portrait(120, 80), exif=exif)
    assert read_picture(turned, 2**30).x_HWC.shape == (120, 80, 3)


def test_a_huge_picture_is_read_small_or_refused_by_its_header(tmp_path: Path) -> None:
    from caudal.core.errors import DoesNotFit
    from caudal.runs.generation.pictures import read_picture

    huge = np.zeros((12_000, 12_000, 3), np.uint8)
    photo = save(tmp_path / "huge.jpg", huge, quality=20)
    drawing = save(tmp_path / "huge.png", huge, compress_level=1)
    del huge
    assert max(read_picture(photo, 128 * 2**20).x_HWC.shape) == 2048
    with pytest.raises(DoesNotFit, match="12000×12000"):
        read_picture(drawing, 128 * 2**20)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--prompt", "word " * 40), "77"),
        (("--negative", "word " * 40), "negative prompt"),
        (("--size", "100x64"), "100 is not divisible by 8"),
        (("--size", "large"), "no size"),
        (("--style", "baroque"), "baroque"),
        (("--engine", "tea"), "tea"),
        (("--steps", "0"), "steps"),
        (("--vram", "8GiB", "--device", "auto"), "--vram"),
        (("--control-picture", "depth=x.png"), "depth"),
        (("--control-strength", "canny=0.3"), "canny"),
        (("--control-strength", "canny"), "canny"),
        (("--control-strength", "canny=nan"), "control_strengths.canny"),
        (("--control-strength", "canny=-9"), "control_strengths.canny"),
        (("--control", "identity=somewhere"), "“identity” is a part of the model"),
        (("--identity-end", "0"), "identity_end"),
        (("--lcm", "--scheduler", "euler"), "“euler” was asked for"),
        (("--scheduler", "lcm", "--steps", "60"), "60 steps cannot be made"),
        (("--scheduler", "tea"), "scheduler"),
        (("-o", "picture.jpg"), "picture.jpg"),
        (("-o", "/proc/caudal/one.png"), "/proc"),
    ],
    ids=[
        "prompt",
        "negative prompt",
        "size",
        "no size",
        "style",
        "engine",
        "steps",
        "vram",
        "control picture",
        "control strength",
        "no strength",
        "strength of nan",
        "strength below 0",
        "control called like a part",
        "identity end",
        "few steps by another scheduler",
        "more steps than the schedule has",
        "scheduler",
        "jpeg",
        "place",
    ],
)
def test_wrong_wishes_are_usage_errors_that_name_them(
    model: Path, face: Path, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    code, last, _said = generate(model, face, tmp_path / "one.png", *flags)
    assert code in (2, 6)
    assert words in last["error"]["message"]
    assert last["error"]["hint"]


def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        *(
            (name, name)
            for name in ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer_2", "scheduler")
        ),
        ("identity", "no ControlNet for faces"),
        ("adapter.safetensors", "no identity adapter"),
        ("unet/config.json", "config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "no weights"),
    ],
)
def test_a_missing_part_is_named(model: Path, face: Path, tmp_path: Path, part: str, words: str) -> None:
    broken = copied(model, tmp_path)
    shutil.rmtree(broken / part) if (broken / part).is_dir() else (broken / part).unlink()
    code, last, _said = generate(broken, face, tmp_path / "one.png")
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert words in last["error"]["message"]


@pytest.mark.parametrize(
    "file",
    ["unet/diffusion_pytorch_model.safetensors", "adapter.safetensors", "text_encoder/model.safetensors"],
)
def test_a_truncated_file_is_found_before_anything_is_loaded(
    model: Path, face: Path, tmp_path: Path, file: str
) -> None:
    broken = copied(model, tmp_path)
    path = broken / file
    path.write_bytes(path.read_bytes()[:-100])
    code, last, _said = generate(broken, face, tmp_path / "one.png")
    assert (code, last["error"]["code"]) == (4, "bad_model")


def test_a_broken_schedule_is_said_before_the_encoders_run(
    model: Path, face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caudal.runs.generation.session import Session

    monkeypatch.setattr(Session, "_bring_encoders", lambda _self: pytest.fail("encoders were loaded"))
    broken = copied(model, tmp_path)
    path = broken / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "teatime"}))
    code, last, _said = generate(broken, face, tmp_path / "one.png")
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert "scheduler" in last["error"]["message"]


def test_a_tokenizer_that_says_no_length_has_its_encoders(model: Path, face: Path, tmp_path: Path) -> None:
    longer = copied(model, tmp_path)
    for name in ("tokenizer", "tokenizer_2"):
        path = longer / name / "tokenizer_config.json"
        config = json.loads(path.read_text())
        del config["model_max_length"]
        path.write_text(json.dumps(config))
    assert generate(longer, face, tmp_path / "one.png")[0] == 0
    code, last, _said = generate(longer, face, tmp_path / "two.png", "--prompt", "word " * 40)
    assert (code, last["error"]["code"]) == (2, "usage")
    assert "77" in last["error"]["message"]


def test_an_adapter_of_other_widths_is_refused(model: Path, face: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = copied(model, tmp_path)
    state = load_file(broken / "adapter.safetensors")
    state["ip_adapter.9.to_k_ip.weight"] = state["ip_adapter.9.to_k_ip.weight"][:, :32].contiguous()
    save_file(state, broken / "adapter.safetensors")
    code, last, _said = generate(broken, face, tmp_path / "one.png")
    assert (code, last["error"]["code"]) == (4, "bad_model")


def test_an_adapter_for_another_base_model_is_refused(model: Path, face: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = copied(model, tmp_path)
    state = load_file(broken / "adapter.safetensors")
    state["image_proj.proj_out.weight"] = state["image_proj.proj_out.weight"][:48].contiguous()
    save_file(state, broken / "adapter.safetensors")
    code, last, _said = generate(broken, face, tmp_path / "one.png")
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert "48" in last["error"]["message"]


class Runs:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple:
        return (print, ("it ran",))


def test_a_pickle_with_code_is_not_opened(model: Path, face: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    import torch

    torch.save({"image_proj": Runs()}, tmp_path / "evil.bin")
    code, last, said = generate(model, face, tmp_path / "one.png", "--adapter", tmp_path / "evil.bin")
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert "run code" in last["error"]["message"]
    assert "it ran" not in said + capsys.readouterr().out


# Converting.


def test_a_converted_model_makes_the_same_picture_as_its_source_in_that_type(
    model: Path, face: Path, tmp_path: Path
) -> None:
    code, _last, said = call("convert", model, "-o", tmp_path / "bf16", "--precision", "bf16", "--json")
    assert code == 0, said
    pictures = []
    for i, folder in enumerate((model, tmp_path / "bf16")):
        assert generate(folder, face, tmp_path / f"{i}.png", "--precision", "bf16")[0] == 0
        pictures.append(pixels(tmp_path / f"{i}.png"))
    assert np.array_equal(*pictures)
    sizes = [sum(p.stat().st_size for p in f.rglob("*.safetensors")) for f in (model, tmp_path / "bf16")]
    assert sizes[1] < 0.52 * sizes[0]


def test_a_conversion_that_fails_leaves_nothing_and_can_be_tried_again(model: Path, tmp_path: Path) -> None:
    broken = copied(model, tmp_path)
    weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    before = sorted(tmp_path.iterdir())
    words = ("convert", broken, "-o", tmp_path / "bf16", "--json")
    code, last, _said = call(*words)
    assert (code, last["error"]["code"]) == (4, "bad_model")
    assert sorted(tmp_path.iterdir()) == before
    weights.write_bytes(whole)
    assert call(*words)[0] == 0
    assert sorted(tmp_path.iterdir()) == [tmp_path / "bf16", *before]
    code, last, _said = call(*words)
    assert (code, last["error"]["code"]) == (2, "usage")


def test_a_full_disk_at_the_last_file_is_said_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import shutil

    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    _code, last, _said = call("convert", model, "-o", tmp_path / "bf16", "--json")
    assert last["error"]["code"] == "disk_full"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y.safetensors"])
def test_a_place_for_weights_that_cannot_be_written_is_a_usage_error(model: Path, place: str) -> None:
    code, last, _said = call("convert", model, "-o", place, "--json")
    assert (code, last["error"]["code"]) == (2, "usage")
    assert "cannot be written" in last["error"]["message"]


def test_pickled_shards_become_shards_that_are_found(model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from caudal.models.generation.layout import weight_files
    from caudal.models.generation.part import open_part
    from caudal.runs.generation.studio import open_model

    source = copied(model, tmp_path)
    whole = load_file(source / "text_encoder" / "model.safetensors")
    (source / "text_encoder" / "model.safetensors").unlink()
    for number in (1, 2):
        shard = dict(list(whole.items())[number - 1 :: 2])
        torch.save(shard, source / "text_encoder" / f"pytorch_model-0000{number}-of-00002.bin")
    assert call("convert", source, "-o", tmp_path / "out", "--precision", "fp32", "--json")[0] == 0
    names = [path.name for path in weight_files(tmp_path / "out" / "text_encoder")]
    assert names == [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    part = open_part("text_encoder", open_model(tmp_path / "out"))
    loaded = part.load("cpu", torch.float32).state_dict()
    assert len(loaded) == len(whole)
    part.close()


def test_a_pickled_adapter_becomes_a_file_that_gives_the_same(
    model: Path, face: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    flat = load_file(model / "adapter.safetensors")
    tree: dict = {"image_proj": {}, "ip_adapter": {}}
    for name, value in flat.items():
        kind, _dot, rest = name.partition(".")
        tree[kind][rest] = value
    torch.save(tree, tmp_path / "ip-adapter.bin")
    code, _last, _said = call(
        "convert",
        tmp_path / "ip-adapter.bin",
        "-o",
        tmp_path / "a.safetensors",
        "--precision",
        "fp32",
        "--json",
    )
    assert code == 0
    again = load_file(tmp_path / "a.safetensors")
    assert again.keys() == flat.keys()
    assert all(torch.equal(again[name], flat[name]) for name in flat)
    assert generate(model, face, tmp_path / "one.png", "--adapter", tmp_path / "ip-adapter.bin")[0] == 0


# The mark.


def test_the_mark_survives_jpeg_and_is_not_seen_where_it_is_not(tmp_path: Path) -> None:
    x_HWC, generator = smooth(), np.random.default_rng(0)
    marked = mark(x_HWC)
    assert np.abs(marked.astype(int) - x_HWC).max() <= 6
    assert np.abs(marked.astype(int) - x_HWC).mean() <= 2
    save(tmp_path / "lossy.jpg", marked, quality=80)
    assert is_marked(marked)
    assert is_marked(pixels(tmp_path / "lossy.jpg"))
    for other in (
        x_HWC,
        generator.integers(0, 255, (512, 512, 3), dtype=np.uint8),
        np.zeros((256, 256, 3), np.uint8),
    ):
        assert abs(certainty(other)) < 6
