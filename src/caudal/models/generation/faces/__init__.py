"""Engines that find and describe faces, behind `tasks.generation.faces.FaceEngine`; one file each."""

from __future__ import annotations

from caudal.core.registry import Registry

ENGINES = Registry(
    "face engine",
    "caudal.faces",
    {
        "opencv": "caudal.models.generation.faces.opencv:OpenCvFaces",
        "onnx": "caudal.models.generation.faces.onnx:OnnxFaces",
        "stand_in": "caudal.models.generation.faces.stand_in:StandIn",
    },
)
