"""Image models of transformers: configuration and weights, from a folder or by hub id, trusting nothing.

Code that comes with a model never runs, only safetensors are opened, and what a configuration may ask of
the library beyond its architecture (kernels from elsewhere, quantizers, adapters) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caudal.core.confined import check_path, is_confined
from caudal.core.errors import BadModel, CaudalError, UsageError
from caudal.core.messages import _

_NOT_ARCHITECTURE = {"auto_map", "quantization_config", "attn_implementation", "experts_implementation"}
_NOT_ARCHITECTURE |= {"dtype", "torch_dtype", "architectures", "transformers_version", "transformers_weights"}
_NOT_ARCHITECTURE |= {"id2label", "label2id", "num_labels", "return_dict", "output_hidden_states"}
_NOT_ARCHITECTURE |= {"output_attentions", "problem_type"}
_MOST_GROWTH = 8  # float32 in memory for half a byte in the file
_SLACK_BYTES = 1 << 26


def architecture_of(source: str) -> dict[str, Any]:
    """The configuration of a model in a folder or on the hub: plain values, `model_type` among them.

    Raises:
        BadModel: nothing there, or no configuration of an image model that is known here.
        UsageError: transformers is not installed.
    """
    library = _transformers()
    _refuse_files(source)
    _refuse_parts_elsewhere(source)
    with _said_plainly(source), _quiet():
        config = library.AutoConfig.from_pretrained(source, trust_remote_code=False)
        if optional_json(source, "adapter_config.json") is not None:
            raise BadModel(
                _("{source} is an adapter for another model.").format(source=source),
                _("Merge it into its model, and give the folder of that."),
            )
        return _values(config)


def architecture_named(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a kind of model (`resnet`, `convnext`, `vit` …) with `options` set in it.

    Raises:
        UsageError: no such kind, an option that it does not have or take; transformers is not installed.
    """
    library = _transformers()
    try:
        known = set(library.AutoConfig.for_model(kind).to_dict())
    except (ValueError, KeyError):
        raise UsageError(
            _("There is no kind of backbone “{kind}”.").format(kind=kind),
            _("Name a model type of transformers, such as resnet, convnext, vit or swin."),
        ) from None
    unknown = sorted(set(options) - known)
    if unknown:
        names = sorted(name for name in known - _NOT_ARCHITECTURE if not name.startswith("_"))
        raise UsageError(
            _("A backbone of kind “{kind}” has no option “{option}”.").format(kind=kind, option=unknown[0]),
            _("It has: {names}.").format(names=", ".join(names)),
        )
    with _said_plainly(kind):
        return _values(library.AutoConfig.for_model(kind, **options))


def build(architecture: dict[str, Any], outputs: int) -> nn.Module:
    """An untrained image classifier of this configuration.

    Raises:
        BadModel: the configuration is that of no image classifier.
        UsageError: transformers is not installed.
    """
    library = _transformers()
    with _said_plainly(str(architecture.get("model_type"))), _quiet():
        config = _config(architecture, outputs)
        model: nn.Module = library.AutoModelForImageClassification.from_config(config)
    return model


def load(source: str, architecture: dict[str, Any], outputs: int) -> tuple[nn.Module, list[str]]:
    """The same with the weights of `source`, float32, and the names of tensors that it lacks; head aside.

    Raises:
        BadModel: no safetensors there, or they are broken or of another architecture.
        UsageError: transformers is not installed.
    """
    library = _transformers()
    _refuse_parts_elsewhere(source)
    with _said_plainly(source), _quiet():
        config = _config(architecture, outputs)
        _refuse_claims(source, architecture, outputs)
        model, found = library.AutoModelForImageClassification.from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the head's; any other is refused below
            output_loading_info=True,
            dtype=torch.float32,
        )
    head = {name for name, _tensor in head_of(model)}
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in found["mismatched_keys"])
    wrong = [name for name in wrong if name not in head]
    body = [name for name, _tensor in model.named_parameters() if name not in head]
    missing = sorted(name for name in found["missing_keys"] if name in set(body))
    if wrong or len(missing) == len(body):
        raise BadModel(
            _("{source} holds weights that are not those of its configuration (first: {name}).").format(
                source=source, name=(wrong or missing)[0]
            ),
            _("Give a folder as `save_pretrained` writes it."),
        )
    return model, missing


def head_of(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and weights of what is not the body: of the layers from features to scores."""
    body = {id(weight) for weight in model.base_model.parameters()}  # type: ignore[union-attr]
    return [(name, weight) for name, weight in model.named_parameters() if id(weight) not in body]


def optional_json(source: str, name: str) -> dict[str, Any] | None:
    """The JSON object in file `name` of a folder or hub model; `None` where there is none to be had."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        values = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UsageError(
            _("Backbones need the package transformers, which is not installed."),
            _("Install it with: pip install 'caudal[backbones]'"),
        ) from None
    return transformers


def _config(architecture: dict[str, Any], outputs: int) -> Any:
    """A configuration object with nothing but architecture, and with nothing random in training.

    Masks of dropout would depend on how a batch is cut into micro-batches.
    """
    kept = {k: v for k, v in architecture.items() if k not in _NOT_ARCHITECTURE and not k.startswith("_")}
    for key, value in kept.items():
        if "drop" in key and isinstance(value, float):
            kept[key] = 0.0
    kind = kept.pop("model_type")
    config = _transformers().AutoConfig.for_model(kind, **kept, num_labels=outputs)
    config.architectures = _one_head_of_several(kind, architecture.get("architectures") or ())
    return config


def _one_head_of_several(kind: str, stored: Iterable[str]) -> list[str] | None:
    """Of a kind with several classifiers, the one that was stored, or the plain one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES

    names = NAMES.get(kind)
    if not isinstance(names, tuple):
        return None
    return [next((name for name in stored if name in names), names[0])]


def _values(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return values


def _refuse_files(source: str) -> None:
    path = Path(source)
    looks_like_a_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if path.is_dir() or not (path.exists() or looks_like_a_path):
        return
    raise BadModel(
        _("{source} is not a folder.").format(source=source),
        _("Give a folder with config.json and model.safetensors, or a hub id like owner/name."),
    )


def _refuse_parts_elsewhere(source: str) -> None:
    """The library opens what it finds there and what an index names, and asks nobody."""
    if not is_confined():
        return
    folder = Path(source)
    for path in (folder, *folder.rglob("*")):
        check_path(path)
    for index in folder.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # the library says what is wrong with it
        for name in names:
            check_path(folder / str(name))


def _refuse_claims(source: str, architecture: dict[str, Any], outputs: int) -> None:
    """A configuration may claim any size; memory is taken for what the weights' files bear out."""
    if not Path(source).is_dir():
        return
    files = list(Path(source).glob("*.safetensors"))
    if not files:
        raise BadModel(
            _("{source} holds no weights as safetensors.").format(source=source),
            _("Other kinds of files could run code. Convert it with `save_pretrained`."),
        )
    with torch.device("meta"):  # such a claim is not even asked of the system
        wanted = sum(4 * tensor.numel() for tensor in build(architecture, outputs).state_dict().values())
    there = sum(file.stat().st_size for file in files)
    if wanted > _MOST_GROWTH * there + _SLACK_BYTES:
        raise BadModel(
            _("{source} holds {there} bytes of weights, and its configuration asks for {wanted}.").format(
                source=source, there=there, wanted=wanted
            ),
            _("Give a folder as `save_pretrained` writes it."),
        )


@contextmanager
def _said_plainly(source: str) -> Iterator[None]:
    try:
        yield
    except (CaudalError, MemoryError):
        raise
    except Exception as error:  # a library that reads what strangers wrote has no tree of errors
        raise BadModel(
            _("{source} holds no image model that can be read: {why}.").format(
                source=source, why=str(error).strip().split("\n")[0].rstrip(".")[:200]
            ),
            _("Give a folder with config.json and model.safetensors, or a hub id like owner/name."),
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No table of loaded weights and no progress bar: what matters is said by us."""
    logging: Any = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
