"""Faces by ONNX models in the layout that insightface uses: an SCRFD detector and an ArcFace recognizer.

The user brings the files; nothing is fetched. Most published ones may be used for non-commercial research
only, which is said each time. Other files of such a folder are not opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.confined import check_path
from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.models.generation.faces.alignment import aligned
from caudal.models.generation.libraries import need
from caudal.tasks.generation.faces import Face, Picture

Array = npt.NDArray[np.float32]
_DETECTORS, _RECOGNIZERS = ("scrfd*.onnx", "det_*.onnx"), ("glintr*.onnx", "w600k*.onnx", "*arcface*.onnx")
_STRIDES = (8, 16, 32)
_LEAST_SCORE, _MOST_OVERLAP = 0.5, 0.4
_MULTIPLE_PX = 32


class OnnxFaces:
    """SCRFD and ArcFace, run by onnxruntime on the CPU. `embedding` is read from the recognizer."""

    name = "onnx"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Open the two models in `folder`.

        Raises:
            BadModel: one is missing, or is another kind of model.
            UsageError: onnxruntime is not installed.
        """
        self.licence = _("as its files say; those of insightface are for non-commercial research only")
        self._detector = _session(_one_of(folder, _DETECTORS), threads)
        self._recognizer = _session(_one_of(folder, _RECOGNIZERS), threads)
        if len(self._detector.get_outputs()) != 3 * len(_STRIDES):
            raise _unknown(folder, _("its detector gives no scores, boxes and points at three scales"))
        shape = self._recognizer.get_outputs()[0].shape
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise _unknown(folder, _("its recognizer gives no row of numbers"))
        self.embedding: int = shape[1]
        self._folder = folder
        sides = self._detector.get_inputs()[0].shape[2:]
        if len(sides) != 2:
            raise _unknown(folder, _("its detector takes no pictures"))
        # Height and width; 0 where any will do.
        self._fixed_px = tuple(side if isinstance(side, int) else 0 for side in sides)
        self.least_px = max(self._fixed_px)

    def detect(self, x_HWC: Picture) -> list[Face]:
        """See `FaceEngine.detect`."""
        height, width = x_HWC.shape[:2]
        free = -(-max(height, width) // _MULTIPLE_PX) * _MULTIPLE_PX
        tall, wide = (side or free for side in self._fixed_px)
        factor = min(1.0, tall / height, wide / width)
        seen = np.zeros((tall, wide, 3), np.uint8)
        if factor < 1:
            import cv2

            size = (max(1, int(width * factor)), max(1, int(height * factor)))
            x_HWC = np.asarray(cv2.resize(x_HWC, size), np.uint8)
        seen[: x_HWC.shape[0], : x_HWC.shape[1]] = x_HWC
        x_1CHW = ((seen.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
        outputs = [out.reshape(-1, out.shape[-1]) for out in self._run(self._detector, x_1CHW)]
        found = []
        for scale, stride in enumerate(_STRIDES):
            scores, boxes, points = outputs[scale :: len(_STRIDES)]
            cells = (tall // stride) * (wide // stride)
            if (scores.shape[1], boxes.shape[1], points.shape[1]) != (1, 4, 10) or len(scores) % cells:
                raise _unknown(
                    self._folder, _("its detector gives no scores, boxes and points at three scales")
                )
            found += _decoded(scores, boxes, points, stride, (tall, wide))
        return [face.scaled(1 / factor) for face in _without_doubles(found)]

    def embed(self, x_HWC: Picture, face: Face) -> Array:
        """See `FaceEngine.embed`."""
        crop = aligned(x_HWC, face.points_52)
        x_1CHW = ((crop.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]
        return np.asarray(self._run(self._recognizer, x_1CHW)[0][0], np.float32)

    def _run(self, session: Any, x_1CHW: npt.NDArray[Any]) -> list[Array]:
        """What a model gives; one that does not take such pictures is another kind of model.

        Raises:
            BadModel: it is.
        """
        try:
            found: list[Array] = session.run(None, {session.get_inputs()[0].name: x_1CHW})
        except Exception as error:  # onnxruntime has an error class for each of its codes
            raise _unknown(self._folder, (str(error).splitlines() or ["?"])[0][:160]) from None
        return found


def _decoded(scores: Array, boxes: Array, points: Array, stride: int, sides: tuple[int, int]) -> list[Face]:
    """Faces from one scale: distances from the centres of a grid, in strides."""
    y, x = np.mgrid[: sides[0] // stride, : sides[1] // stride]
    centres = np.stack([x, y], -1).reshape(-1, 2).astype(np.float32) * stride
    centres = np.repeat(centres, len(scores) // len(centres), axis=0)
    found = []
    for index in np.flatnonzero(scores[:, 0] >= _LEAST_SCORE):
        centre, (left, top, right, bottom) = centres[index], boxes[index] * stride
        box = (centre[0] - left, centre[1] - top, centre[0] + right, centre[1] + bottom)
        points_52 = points[index].reshape(5, 2) * stride + centre
        found.append(Face(tuple(map(float, box)), points_52.astype(np.float32), float(scores[index, 0])))  # type: ignore[arg-type]
    return found


def _without_doubles(faces: list[Face]) -> list[Face]:
    """The surest face of those that overlap."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda one: -one.score):
        if all(_overlap(face, other) <= _MOST_OVERLAP for other in kept):
            kept.append(face)
    return kept


def _overlap(one: Face, other: Face) -> float:
    width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    both = max(0.0, width) * max(0.0, height)
    return both / max(1e-9, one.area + other.area - both)


def _one_of(folder: Path, patterns: tuple[str, ...]) -> Path:
    for pattern in patterns:
        if found := sorted(folder.glob(pattern)):
            check_path(found[0])
            return found[0]
    raise _unknown(folder, _("no file there is called {names}").format(names=_(" or ").join(patterns)))


def _session(path: Path, threads: int) -> Any:
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # it keeps the largest picture's bytes for ever
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an error class for each of its codes
        raise _unknown(path, str(error).splitlines()[0][:160]) from None


def _unknown(path: Path, why: str) -> BadModel:
    return BadModel(
        _("{path} holds no face models that can be used: {why}.").format(path=path, why=why.rstrip(".")),
        _(
            "Give a folder with an SCRFD detector and an ArcFace recognizer as ONNX files (--faces), "
            "or choose another engine (--engine opencv)."
        ),
    )
