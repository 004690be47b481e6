"""What a run does with its data, by family of tasks, behind the contract in `base.py`."""

from __future__ import annotations

from caudal.core.registry import Registry

WORKS = Registry(
    "task",
    "caudal.works",
    {
        "segmentation": "caudal.runs.work.scenes:Scenes",
        "anomaly": "caudal.runs.work.normal_scenes:NormalScenes",
        "classification": "caudal.runs.work.sets:Sets",
        "sequence": "caudal.runs.work.sets:Sets",
        "graph": "caudal.runs.work.sets:Sets",
    },
)
