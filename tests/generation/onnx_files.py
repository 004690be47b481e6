"""Small ONNX models written by hand: the few fields of the format that a small graph needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _field(number: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _ints(name: str, values: list[int]) -> bytes:
    return _field(5, _field(1, name) + b"".join(_field(8, v) for v in values) + _field(20, 7))


def tensor(name: str, values: np.ndarray) -> bytes:
    kind = FLOAT if values.dtype == np.float32 else INT64
    dims = b"".join(_field(1, side) for side in values.shape)
    return _field(5, dims + _field(2, kind) + _field(8, name) + _field(9, values.tobytes()))


def node(kind: str, inputs: list[str], output: str, **ints: list[int]) -> bytes:
    body = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, kind)
    return _field(1, body + b"".join(_ints(name, values) for name, values in ints.items()))


def value(number: int, name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1, s) if isinstance(s, int) else _field(2, s)) for s in shape)
    kind = _field(1, _field(1, FLOAT) + _field(2, dims))
    return _field(number, _field(1, name) + _field(2, kind))


def write(path: Path, *parts: bytes) -> Path:
    graph = b"".join(parts) + _field(2, "small")
    path.write_bytes(_field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph))
    return path


def write_detector(
    path: Path, side: int, faces: list[tuple[int, int, int, float]], wide: int = 0, colours: int = 3
) -> Path:
    """An SCRFD of fixed size whose answers are constants: (stride, cell index, anchor, score) of each face.

    It is `wide` pixels wide, or as wide as high, and takes pictures of so many `colours`.

    Every face has a box of 2 strides to each side, and points at -1, +1, 0, -1, +1 strides from its centre.
    """
    parts = [value(11, "x", [1, colours, side, wide or side])]
    outputs = []
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            rows = (side // stride) * ((wide or side) // stride) * 2
            answer = np.zeros((rows, width), np.float32)
            for face_stride, cell, anchor, score in faces:
                if face_stride == stride:
                    row = cell * 2 + anchor
                    answer[row] = {
                        "score": [score], "box": [2, 2, 2, 2], "points": [-1, -1, 1, -1, 0, 0, -1, 1, 1, 1]
                    }[kind]  # fmt: skip
            name = f"{kind}_{stride}"
            parts += [tensor(f"{name}_c", answer), node("Identity", [f"{name}_c"], name)]
            outputs.append(value(12, name, [rows, width]))
    return write(path, *parts, *outputs)


def write_recognizer(path: Path, numbers: int = 512) -> Path:
    """Average colour of a crop of 112 pixels, times a fixed matrix: (1, numbers)."""
    matrix = np.random.default_rng(0).standard_normal((3, numbers)).astype(np.float32)
    return write(
        path,
        value(11, "x", [1, 3, 112, 112]),
        node("ReduceMean", ["x"], "mean", axes=[2, 3], keepdims=[0])
        .replace(_ints("keepdims", [0]), _int("keepdims", 0)),
        tensor("matrix", matrix),
        node("MatMul", ["mean", "matrix"], "y"),
        value(12, "y", [1, numbers]),
    )  # fmt: skip


def _int(name: str, number: int) -> bytes:
    return _field(5, _field(1, name) + _field(3, number) + _field(20, 2))


YUNET_POINTS = (-1, -1, 1, -1, 0, 0, -0.5, 1, 0.5, 1)


def write_yunet(path: Path) -> Path:
    """YuNet's layout at any size, with heads that see colours: a face is a cell of its scale that is full of
    red (stride 8), green (16) or blue (32), twice as wide and three times as high as the cell."""
    parts = [value(11, "input", [1, 3, "height", "width"])]
    outputs = []
    for channel, stride in ((2, 8), (1, 16), (0, 32)):  # OpenCV shows it blue first
        seen = np.full((1, 3, stride, stride), -1 / stride**2, np.float32)
        seen[0, channel] = 1 / stride**2  # the channel's mean less those of the others: 255 at most
        heads = {
            "cls": (seen, [-200.0]),
            "obj": (np.zeros((1, 3, stride, stride), np.float32), [10.0]),
            "bbox": (np.zeros((4, 3, stride, stride), np.float32), [0.5, 0.5, np.log(2), np.log(3)]),
            "kps": (np.zeros((10, 3, stride, stride), np.float32), list(YUNET_POINTS)),
        }
        for head, (weights, bias) in heads.items():
            name = f"{head}_{stride}"
            last = f"{name}_r" if head in ("cls", "obj") else name
            parts += [
                tensor(f"{name}_w", weights),
                tensor(f"{name}_b", np.array(bias, np.float32)),
                tensor(f"{name}_s", np.array([1, -1, len(bias)], np.int64)),
                node("Conv", ["input", f"{name}_w", f"{name}_b"], f"{name}_c", kernel_shape=[stride] * 2,
                     strides=[stride] * 2, pads=[0] * 4),
                node("Transpose", [f"{name}_c"], f"{name}_t", perm=[0, 2, 3, 1]),
                node("Reshape", [f"{name}_t", f"{name}_s"], last),
                *([node("Sigmoid", [last], name)] if last != name else []),
            ]  # fmt: skip
            outputs.append(value(12, name, [1, f"cells_{stride}", len(bias)]))
    return write(path, *parts, *outputs)


def write_sface(path: Path, numbers: int = 128) -> Path:
    """SFace's layout: the mean colour of a crop of 112 pixels, 0 to 255 and red first, times a matrix."""
    matrix = np.random.default_rng(1).standard_normal((3, numbers)).astype(np.float32)
    return write(
        path,
        value(11, "data", [1, 3, 112, 112]),
        node("ReduceMean", ["data"], "mean", axes=[2, 3], keepdims=[0])
        .replace(_ints("keepdims", [0]), _int("keepdims", 0)),
        tensor("matrix", matrix),
        node("MatMul", ["mean", "matrix"], "fc1"),
        value(12, "fc1", [1, numbers]),
    )  # fmt: skip
