"""A folder with a model of samples that learned nothing: what needs a model, and not what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from caudal.models import weights
from caudal.runs import assemble
from caudal.runs.spec import RunSpec
from caudal.runs.work.sets import Sets


def asked(task: str, path: Path, **sections: Any) -> RunSpec:
    """A spec of a small model."""
    small = {
        "sequence": {"name": "recurrent", "config": {"width": 4}},
        "graph": {"name": "graph_conv", "config": {"width": 4, "layers": 1}},
        "classification": {"name": "residual", "config": {"width": 4, "depth": 1}},
    }[task]
    small["config"] = {**small["config"], **sections.pop("config", {})}  # type: ignore[dict-item]
    return RunSpec.make(
        {
            "task": task,
            "data": {"images": [str(path)], **sections.pop("data", {})},
            "training": sections.pop("training", {"steps": 6, "batch": 4, "average": 2, "validate_every": 6}),
            "model": small,
            "device": "cpu",
            **sections,
        }
    )


def untrained(made: RunSpec, out: Path) -> Path:
    """The folder `out`, as a run leaves it, of a model for the data of a spec."""
    work = Sets.open(made)
    kind = work.opened.kind
    statistics = kind.statistics(work.samples.only(work.split.train), work.inputs, 1, 0)
    task = kind.make_task(made, work.sought, None, {})
    torch.manual_seed(0)
    model = assemble.make_model(made, work.inputs.count, task.outputs(), "cpu", work.inputs.config)
    card = weights.ModelCard(
        task=made.task,
        architecture=made.model.name,
        config=model.config.model_dump(mode="json"),  # type: ignore[union-attr, operator]
        bands=work.inputs.count,
        outputs=task.outputs(),
        normalization=statistics.values,
        classes=work.sought.model_dump(mode="json"),
        inputs={
            "inputs": work.inputs.model_dump(mode="json"),
            "data": made.data.model_dump(mode="json"),
            "chosen": {},
        },
        memory={"device": "cpu", "scoring": 0},
    )
    weights.save(out / "model", model, card)
    return out
