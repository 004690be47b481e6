"""Laws of backbones: any kind, any bands, from folders of safetensors alone, nothing in them trusted."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from caudal.core.errors import BadModel, UsageError
from caudal.models import explained, pretrained
from caudal.models.backbone import Backbone, BackboneConfig
from caudal.models.unfilled import unfilled

transformers = pytest.importorskip("transformers")

TOKENS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "vit": TOKENS,
    "deit": TOKENS,
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32, "window_size": 4},
}
KINDS = sorted(OPTIONS)


def make_folder(folder: Path, kind: str, labels: int = 5) -> Path:
    """A tiny model as its users have it on disk, with five classes of its own."""
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **OPTIONS[kind], num_labels=labels)
    config.architectures = ["DeiTForImageClassification"] if kind == "deit" else None
    model = transformers.AutoModelForImageClassification.from_config(config)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)  # running statistics that are not those of a fresh model
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "size": {"shortest_edge": 32}}
        )
    )
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    base, made = tmp_path_factory.mktemp("backbones"), {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_folder(base / kind, kind)
        return made[kind]

    return folder


def from_source(source: Path, inputs: int = 3, outputs: int = 2) -> Backbone:
    return Backbone(inputs, outputs, BackboneConfig(source=str(source)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_is_that_of_the_folder_and_the_head_is_ours(
    kind: str, folders: Callable[[str], Path]
) -> None:
    model = from_source(folders(kind)).eval()
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folders(kind)).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        ours = model.net.base_model(pixel_values=x).last_hidden_state
        expected = theirs.base_model(pixel_values=x).last_hidden_state
        assert torch.allclose(ours, expected, atol=1e-5)
        assert model(x).shape == (2, 2)
    assert model.notes == []
    assert model.normalization == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert model.image_size == 32


@pytest.mark.parametrize("kind", KINDS)
def test_head_and_body_are_all_weights_and_share_none(kind: str, folders: Callable[[str], Path]) -> None:
    model = from_source(folders(kind), outputs=7)
    head, body = (
        [id(p) for p in part] for part in (list(model.head_parameters()), list(model.body_parameters()))
    )
    assert set(head) & set(body) == set()
    assert sorted(head + body) == sorted(id(p) for p in model.parameters())
    assert sum(p.numel() for p in model.head_parameters()) == sum(
        p.numel() for n, p in model.named_parameters() if "classifier" in n
    )


def test_a_head_of_as_many_classes_as_ours_is_replaced_too(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "two", "resnet", labels=2)
    model = from_source(source)
    stored = load_file(source / "model.safetensors")["classifier.1.weight"]
    assert not torch.allclose(next(model.head_parameters()), stored)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bands", [1, 4, 8])
def test_images_of_equal_bands_look_the_same_to_an_adapted_model(
    kind: str, bands: int, folders: Callable[[str], Path]
) -> None:
    three, other = from_source(folders(kind)).eval(), from_source(folders(kind), inputs=bands).eval()
    grey = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = three.net.base_model(pixel_values=grey.expand(-1, 3, -1, -1)).last_hidden_state
        found = other.net.base_model(pixel_values=grey.expand(-1, bands, -1, -1)).last_hidden_state
    assert torch.allclose(found, expected, atol=1e-4)
    assert any(str(bands) in note for note in other.notes)
    assert other.normalization is None
    other(torch.rand(1, bands, 32, 32)).sum().backward()  # and it trains


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_source_it_begins_at_random_and_says_so(kind: str) -> None:
    model = Backbone(5, 3, BackboneConfig(kind=kind, options=OPTIONS[kind]))
    assert model(torch.rand(2, 5, 32, 32)).shape == (2, 3)
    assert "random" in model.notes[0]
    assert kind in model.notes[0]
    assert (model.bands, model.outputs, model.normalization) == (5, 3, None)


@pytest.mark.parametrize("kind", ["resnet", "convnext"])
@pytest.mark.parametrize("micro_batch", [4, 8])
def test_gradients_do_not_depend_on_the_micro_batch(
    kind: str, micro_batch: int, folders: Callable[[str], Path]
) -> None:
    x = torch.rand(8, 3, 32, 32)
    whole, parts = from_source(folders(kind)).train(), from_source(folders(kind)).train()
    parts.load_state_dict(whole.state_dict())
    whole(x).square().sum().backward()
    for part in x.split(micro_batch):
        parts(part).square().sum().backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_training_draws_no_random_numbers(kind: str) -> None:
    dropped = {k: 0.5 for k in ("hidden_dropout_prob", "drop_path_rate") if kind in ("vit", "swin")}
    if kind == "vit":
        del dropped["drop_path_rate"]
    model = Backbone(3, 2, BackboneConfig(kind=kind, options=OPTIONS[kind] | dropped)).train()
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_needs_its_source_no_more(kind: str, tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", kind)
    model = from_source(source, inputs=4).eval()
    config = BackboneConfig.make(json.loads(json.dumps(model.config.model_dump(mode="json"))))
    state = model.state_dict()
    for file in source.iterdir():
        file.unlink()
    with unfilled():
        again = Backbone(4, 2, config)
    again.load_state_dict(state, assign=True)
    x = torch.rand(2, 4, 32, 32)
    with torch.no_grad():
        assert torch.allclose(again.eval()(x), model(x), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_explained_layer_is_a_map_on_which_the_scores_depend_as_one(
    kind: str, folders: Callable[[str], Path]
) -> None:
    model = from_source(folders(kind)).eval()
    x = torch.rand(2, 3, 32, 32)
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(model.explained_layer).register_forward_hook(
        lambda _m, _i, out: seen.append(out)
    )
    scores = model(x)
    hook.remove()
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), seen[0])
    places = explained.as_map(gradient, (32, 32)).abs().sum(1)
    assert places.shape[1] == places.shape[2] > 1
    assert (places > 0).all()
    features = model.features(x)
    assert features.shape[2:] == places.shape[1:]
    assert torch.equal(features, explained.as_map(seen[0], (32, 32)))


@pytest.mark.parametrize("head", ["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"])
def test_of_several_heads_of_a_kind_the_stored_one_is_taken(tmp_path: Path, head: str) -> None:
    config = transformers.AutoConfig.for_model("deit", **OPTIONS["deit"], num_labels=5)
    getattr(transformers, head)(config).save_pretrained(tmp_path)
    model = from_source(tmp_path)
    assert type(model.net).__name__ == head
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    again = Backbone(3, 2, model.config)
    assert type(again.net).__name__ == head


def test_a_kind_that_takes_one_size_says_it_and_is_explained_at_that() -> None:
    small = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    model = Backbone(3, 2, BackboneConfig(kind="pvt", options={**small, "image_size": 32}))
    with pytest.raises(UsageError, match="for images of 32 px takes none of 64 px"):
        model(torch.zeros(1, 3, 64, 64))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert model.explained_layer


def test_tokens_before_those_of_the_image_are_left_out() -> None:
    tokens = torch.arange(1 + 2 * 4).float()[None, :, None]
    assert explained.as_map(tokens, (16, 32))[0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def test_a_folder_without_safetensors_is_refused_and_no_pickle_is_opened(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    with pytest.raises(BadModel, match="safetensors") as caught:
        from_source(without(source, "model.safetensors"))
    assert caught.value.hint


def test_code_beside_a_model_does_not_run(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    trap = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(trap)!r}).touch()\n"
    (source / "modeling_evil.py").write_text(code)
    values = json.loads((source / "config.json").read_text())
    values["auto_map"] = {
        "AutoConfig": "modeling_evil.Config",
        "AutoModelForImageClassification": "modeling_evil.Model",
    }
    for kind in ("resnet", "evil"):
        (source / "config.json").write_text(json.dumps({**values, "model_type": kind}))
        if kind == "resnet":
            from_source(source)
        else:
            with pytest.raises(BadModel):
                from_source(source)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "bert"}'),
        ("config.json", '{"model_type": "resnet", "hidden_sizes": "many"}'),
        ("model.safetensors", ""),
        ("model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
    ],
)
def test_a_broken_folder_is_refused_in_a_sentence(tmp_path: Path, name: str, content: str) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    (source / name).write_bytes(content.encode("latin1"))
    with pytest.raises(BadModel) as caught:
        from_source(source)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_truncated_file_of_weights_is_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(BadModel):
        from_source(source)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    tensors = load_file(source / "model.safetensors")
    name = next(n for n in tensors if n.endswith("convolution.weight"))
    tensors[name] = torch.zeros(3, 3)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadModel, match="not those of its configuration"):
        from_source(source)


def test_tensors_that_are_lacking_are_named(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    tensors = load_file(source / "model.safetensors")
    name = next(n for n in tensors if n.endswith("convolution.weight"))
    del tensors[name]
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    assert name in from_source(source).notes[0]


def test_a_configuration_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "vit")
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**values, "intermediate_size": 1 << 40}))
    with pytest.raises(BadModel, match="asks for"):
        from_source(source)


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "m", "resnet")
    (source / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(BadModel, match="adapter"):
        from_source(source)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(source: str) -> None:
    with pytest.raises(BadModel, match="not a folder"):
        Backbone(3, 2, BackboneConfig(source=source))


def test_a_file_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(BadModel, match="not a folder"):
        from_source(tmp_path / "weights.bin")


@pytest.mark.parametrize("config", [{"kind": "nothing"}, {"kind": "resnet", "options": {"widht": 3}}])
def test_an_unknown_kind_or_option_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Backbone(3, 2, BackboneConfig(**config))
    assert "nothing" in str(caught.value) or "widht" in str(caught.value)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"caudal\[backbones\]"):
        pretrained.architecture_named("resnet", {})
