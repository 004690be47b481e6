"""Where the parts of a pipeline lie on disk: a folder as diffusers writes it, and what stands beside it.

    MODEL/  unet/ vae/ text_encoder/ text_encoder_2/ tokenizer/ tokenizer_2/ scheduler/
            identity/ (or ControlNetModel/)      the ControlNet that sees faces
            adapter.safetensors (or ip-adapter.bin)
            faces/                               ONNX models of the face engine

Reads names and configurations, never weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caudal.core.confined import check_path
from caudal.core.errors import BadModel
from caudal.core.messages import _

_IDENTITY = ("identity", "ControlNetModel", "controlnet")
_ADAPTERS = ("adapter.safetensors", "ip-adapter.safetensors", "ip-adapter.bin", "ip_adapter.bin")
PARTS = ("text_encoder", "text_encoder_2", "unet", "identity", "vae")
"""The parts of a pipeline that hold weights; further ControlNets stand beside `identity`."""
_MOST_CONFIG_BYTES = 2**20


@dataclass(frozen=True)
class ModelFolder:
    """The places of all parts. `controls` are further ControlNets by kind; `faces` may be absent."""

    base: Path
    identity: Path
    adapter: Path
    faces: Path | None = None
    controls: dict[str, Path] = field(default_factory=dict)
    lcm: Path | None = None

    def folder(self, part: str) -> Path:
        """The folder of a part; a control's is under its kind."""
        if part == "identity":
            return self.identity
        return self.controls.get(part, self.base / part)

    def parts(self) -> tuple[str, ...]:
        """Names of all parts that hold weights, in the order in which they work."""
        return ("text_encoder", "text_encoder_2", "identity", *self.controls, "unet", "vae")


def find(
    base: Path,
    identity: Path | None = None,
    adapter: Path | None = None,
    faces: Path | None = None,
    controls: dict[str, Path] | None = None,
    lcm: Path | None = None,
) -> ModelFolder:
    """The places of all parts: those given, and in `base` for the others.

    Raises:
        BadModel: a part is not there.
    """
    if not base.is_dir():
        raise _missing(_("{path} is not a folder.").format(path=base))
    identity = identity or _first(base, _IDENTITY)
    adapter = adapter or _first(base, _ADAPTERS)
    if identity is None:
        raise _missing(_("{path} holds no ControlNet for faces.").format(path=base), "--identity-net")
    if adapter is None or not adapter.is_file():
        raise _missing(_("{path} holds no identity adapter.").format(path=adapter or base), "--adapter")
    found = ModelFolder(
        base, identity, adapter, faces or _first(base, ("faces",)), controls or {}, lcm=lcm
    )  # fmt: skip
    for part in found.parts():
        read_config(found.folder(part))
        weight_files(found.folder(part))
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        if not (base / name).is_dir():
            raise _missing(_("{path} has no folder “{name}”.").format(path=base, name=name))
    return found


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The configuration in a part's folder.

    Raises:
        BadModel: there is none, or it is no JSON object.
    """
    path = folder / name
    check_path(path)
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError(_("it is too large"))
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(_("it is no JSON object"))
    except (OSError, ValueError) as error:
        why = (error.strerror or "") if isinstance(error, OSError) else str(error).splitlines()[0]
        raise _missing(_("{path} cannot be used: {why}.").format(path=path, why=why)) from None
    return values


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a part: one, or all shards; where there are variants, the plain one.

    Raises:
        BadModel: there is none.
    """
    for stem in ("diffusion_pytorch_model", "model"):
        for name in (f"{stem}.safetensors", f"{stem}.bf16.safetensors", f"{stem}.fp16.safetensors"):
            if (folder / name).is_file():
                return [folder / name]
        shards = sorted(folder.glob(f"{stem}-*-of-*.safetensors"))
        if shards:
            return shards
    pickles = [path.name for path in folder.glob("*.bin")]
    if pickles:
        raise BadModel(
            _("{folder} holds weights as a pickle ({name}), which could run code.").format(
                folder=folder, name=pickles[0]
            ),
            _("Fetch its safetensors files, or ask its author for them."),
        )
    raise _missing(_("{folder} holds no weights as safetensors.").format(folder=folder))


def _first(base: Path, names: tuple[str, ...]) -> Path | None:
    return next((base / name for name in names if (base / name).exists()), None)


def _missing(text: str, flag: str = "") -> BadModel:
    hint = _("Give a folder as diffusers writes it, with all parts of an SDXL model.")
    return BadModel(text, _("Name it with {flag}.").format(flag=flag) if flag else hint)
