"""Faces by OpenCV's own engines: YuNet finds them, SFace describes them in 128 numbers. Both are permissive.

The user brings the two ONNX files. An adapter that was trained on ArcFace's 512 numbers does not understand
SFace's: with such an adapter this engine finds faces and their points, and another one describes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.confined import check_path
from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.models.generation.faces.alignment import aligned
from caudal.tasks.generation.faces import Face, Picture

_DETECTOR, _RECOGNIZER = "*yunet*.onnx", "*sface*.onnx"
_LEAST_SCORE, _MOST_OVERLAP, _MOST_FACES = 0.7, 0.3, 500


class OpenCvFaces:
    """YuNet and SFace."""

    name = "opencv"
    embedding = 128
    least_px = 0

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Open the two models in `folder`; OpenCV has threads of its own.

        Raises:
            BadModel: one is missing, or OpenCV cannot read it.
        """
        import cv2

        self.licence = _("MIT (YuNet), Apache-2.0 (SFace)")
        self._side = (0, 0)
        loud = cv2.utils.logging.getLogLevel()
        # It warns of targets that nobody asked for.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(_only(folder, _DETECTOR)), "", (320, 320), _LEAST_SCORE, _MOST_OVERLAP, _MOST_FACES
            )
            self._recognizer = cv2.FaceRecognizerSF.create(str(_only(folder, _RECOGNIZER)), "")
        except cv2.error as error:
            raise _unknown(folder, str(error).splitlines()[0][:160]) from None
        finally:
            cv2.utils.logging.setLogLevel(loud)

    def detect(self, x_HWC: Picture) -> list[Face]:
        """See `FaceEngine.detect`."""
        size = (x_HWC.shape[1], x_HWC.shape[0])
        if size != self._side:
            self._detector.setInputSize(size)
            self._side = size
        _count, rows = self._detector.detect(np.ascontiguousarray(x_HWC[:, :, ::-1]))
        return [_face(row) for row in (rows if rows is not None else [])]

    def embed(self, x_HWC: Picture, face: Face) -> npt.NDArray[np.float32]:
        """See `FaceEngine.embed`."""
        crop = np.ascontiguousarray(aligned(x_HWC, face.points_52)[:, :, ::-1])
        return np.asarray(self._recognizer.feature(crop), np.float32).reshape(-1).copy()


def _face(row: npt.NDArray[np.float32]) -> Face:
    """YuNet's row: left, top, width, height, five points (the person's right first), score."""
    left, top, width, height = map(float, row[:4])
    points_52 = np.asarray(row[4:14], np.float32).reshape(5, 2)
    return Face((left, top, left + width, top + height), points_52, float(row[14]))


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise _unknown(folder, _("no file there is called {names}").format(names=pattern))
    check_path(found[0])
    return found[0]


def _unknown(path: Path, why: str) -> BadModel:
    return BadModel(
        _("{path} holds no face models that can be used: {why}.").format(path=path, why=why.rstrip(".")),
        _("Give a folder with YuNet and SFace as ONNX files (--faces)."),
    )
