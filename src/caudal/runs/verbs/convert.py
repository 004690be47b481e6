"""`convert`: weights of generation written once as safetensors, in the type that they are computed in.

A folder keeps its layout; a `.bin` adapter becomes a `.safetensors`. Loading is then plain reading, and
weights that stay on disk are read without converting. A few mebibytes are held, whatever the weights take.
What is written is there whole or not at all.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caudal.core.errors import BadModel, UsageError
from caudal.core.files import PART, disk_full, is_disk_full
from caudal.core.messages import _
from caudal.data.paths import local_path
from caudal.memory.meters import Watch
from caudal.runs.result import Result

Tick = Callable[[int, int], None]
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_COPIED = (".json", ".txt", ".md", ".model", ".onnx")
_VARIANTS = (".fp16", ".bf16")


def convert(
    source: str | Path,
    *,
    out: str | Path,
    precision: str = "bf16",
    tick: Tick = lambda _done, _total: None,
) -> Result:
    """Write `source`, a file of weights or a whole model folder, to `out` in `precision` (bf16, fp16, fp32).

    Of a folder, configurations, tokenizers, licences and face models are copied; where a part has variants,
    the plain weights are taken.

    Raises:
        BadModel: no weights there, or they are broken or could run code; nothing is left under `out`.
        DiskFull: no space was left; nothing is left under `out`.
        UsageError: `out` is there already or cannot be written, or an unknown precision.
    """
    from caudal.models.generation.part import PRECISIONS

    began = time.monotonic()
    source, target = local_path(str(source), must_exist=False), local_path(str(out), must_exist=False)
    if precision not in PRECISIONS:
        raise UsageError(
            _("There is no precision “{name}”.").format(name=precision), _("Use bf16, fp16 or fp32.")
        )
    _check_free(target)
    weights, others = _files(source)
    if source.is_file() and target.suffix != ".safetensors":
        raise UsageError(
            _("A file of weights becomes a .safetensors file; {out} is none.").format(out=target),
            _("Let the name end in .safetensors."),
        )
    half_done = target.with_name(target.name + PART)
    with Watch() as watch:
        try:
            _clear(half_done)
            half_done.parent.mkdir(parents=True, exist_ok=True)
            for number, path in enumerate(weights):
                place = half_done if source.is_file() else half_done / _plain(path.relative_to(source))
                _write(path, place, PRECISIONS[precision])
                tick(number + 1, len(weights))
            for path in others:
                place = half_done / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
            half_done.rename(target)
        except BaseException as error:  # Ctrl-C, too, leaves no half folder
            _clear(half_done)
            if is_disk_full(error):
                raise disk_full(target) from None
            if isinstance(error, OSError):
                raise UsageError(
                    _("{out} cannot be written: {why}.").format(out=target, why=error.strerror or error),
                    _("Give another place with -o."),
                ) from None
            raise
    size = sum(path.stat().st_size for path in _every(target))
    return Result(
        verb="convert",
        output=str(target),
        metrics={"files": float(len(weights)), "bytes": float(size)},
        peak_bytes={"ram": int(watch.peak), "vram": 0},
        seconds=time.monotonic() - began,
    )


def _check_free(target: Path) -> None:
    try:
        there = target.exists()
    except OSError as error:
        raise UsageError(
            _("{out} cannot be written: {why}.").format(out=target, why=error.strerror or error),
            _("Give another place with -o."),
        ) from None
    if there:
        raise UsageError(_("{out} is there already.").format(out=target), _("Give a new name with -o."))


def _write(path: Path, place: Path, dtype: Any) -> None:
    from caudal.models.tensor_files import open_tensors, write_converted

    place.parent.mkdir(parents=True, exist_ok=True)
    opened = open_tensors(path)
    try:
        write_converted(place, opened, dtype)
    finally:
        opened.close()


def _clear(half_done: Path) -> None:
    """Remove what this or an earlier call left unfinished."""
    if half_done.is_dir() and not half_done.is_symlink():
        shutil.rmtree(half_done)
    else:
        half_done.unlink(missing_ok=True)


def _files(source: Path) -> tuple[list[Path], list[Path]]:
    """Files of weights, and those that are copied."""
    if source.is_file():
        return [source], []
    found = [path for path in _every(source) if path.suffix in _WEIGHTS]
    by_stem: dict[tuple[Path, str], list[Path]] = {}
    for path in found:
        by_stem.setdefault((path.parent, _stem(path)), []).append(path)
    chosen = []
    for same in by_stem.values():
        # safetensors before what could run code; the plain one before its variants
        chosen.append(min(same, key=lambda path: (path.suffix != ".safetensors", len(path.name))))
    if not chosen:
        raise BadModel(
            _("{path} holds no weights.").format(path=source), _("Give a model folder, or a file of weights.")
        )
    others = [path for path in _every(source) if path.suffix in _COPIED or path.name.startswith("LICENSE")]
    return sorted(chosen), [path for path in others if not path.name.endswith(".index.json")]


def _every(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def _stem(path: Path) -> str:
    """What variants of the same weights have in common; a `.bin` of diffusers is named after its twin."""
    stem = path.stem
    for variant in _VARIANTS:
        stem = stem.replace(variant, "")
    return re.sub(
        r"^pytorch_model(?=-|$)", "model", stem
    )  # shards are numbered: pytorch_model-00001-of-00002


def _plain(path: Path) -> Path:
    return path.with_name(_stem(path) + ".safetensors")
