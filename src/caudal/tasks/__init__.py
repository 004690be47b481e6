"""What is learned: one folder a task, behind the contract in `base.py`. No task knows another."""

from __future__ import annotations

from caudal.core.registry import Registry

TASKS = Registry(
    "task",
    "caudal.tasks",
    {
        "segmentation": "caudal.tasks.segmentation.task:Segmentation",
        "classification": "caudal.tasks.classification.task:Classification",
        "anomaly": "caudal.tasks.anomaly.task:Anomaly",
        "sequence": "caudal.tasks.sequence.task:Sequence",
        "graph": "caudal.tasks.graph.task:Graph",
    },
)
