"""A session on the tiny model, and the latents that it makes before they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caudal.memory.generation.setups import Setup
from caudal.runs.generation.plan import GenerationPlan
from caudal.runs.generation.session import Session, Sitting
from caudal.runs.generation.studio import open_model
from caudal.runs.generation.trace import of_folder
from caudal.runs.verbs.generate import plan_generation  # noqa: F401 - what a user calls
from caudal.tasks.generation.request import GenerationRequest

SIDE = 64
_opened: dict[Any, Session] = {}


def request(**changes: Any) -> GenerationRequest:
    given: dict[str, Any] = {"prompt": "a man", "width": SIDE, "height": SIDE, "steps": 3, "seed": 11}
    return GenerationRequest(**(given | changes))


def planned(
    model: Path,
    wanted: GenerationRequest,
    setup: Setup | None = None,
    controls: dict[str, str] | None = None,
    **budgets: Any,
) -> GenerationPlan:
    from caudal.runs.generation.plan import make_plan

    plan = make_plan(wanted, of_folder(open_model(model, controls=controls)), device="cpu", **budgets)
    return plan if setup is None else plan.model_copy(update={"setup": setup})


@contextmanager
def session(model: Path, wanted: GenerationRequest, setup: Setup | None = None) -> Iterator[Session]:
    with Session(open_model(model), planned(model, wanted, setup)) as opened:
        yield opened


def latents(
    model: Path,
    wanted: GenerationRequest,
    sitting: Sitting,
    setup: Setup | None = None,
    controls: dict[str, str] | None = None,
) -> torch.Tensor:
    """The latent pictures, all seeds in one tensor. Sessions of equal plans are opened once."""
    plan = planned(model, wanted, setup, controls)
    key = (str(model), plan.setup, plan.pictures, plan.guided, str(controls))
    if key not in _opened:
        _opened[key] = Session(open_model(model, controls=controls), plan)
    opened, found = _opened[key], list[torch.Tensor]()
    decoded = opened._decoded
    opened._decoded = lambda made: (found.append(made), decoded(made))[1]  # type: ignore[method-assign]
    try:
        list(opened.make(wanted, sitting))
    finally:
        opened._decoded = decoded  # type: ignore[method-assign]
    return torch.cat(found)


def sessions() -> list[Session]:
    """What `latents` has opened."""
    return list(_opened.values())


def close_all() -> None:
    """Close what `latents` has opened."""
    while _opened:
        _opened.popitem()[1].close()


def sitting(faces_FE: np.ndarray, masks_FHW: np.ndarray | None = None) -> Sitting:
    """Faces at fixed places of a picture of 64 pixels."""
    from caudal.tasks.generation.faces import Face
    from caudal.tasks.generation.keypoints import keypoint_picture

    corners = [(8.0 + 28 * i, 16.0) for i in range(len(faces_FE))]
    points = np.array([[4, 6], [14, 6], [9, 12], [5, 18], [13, 18]], np.float32)
    faces = [Face((x, y, x + 18, y + 24), points + np.array([x, y], np.float32), 1.0) for x, y in corners]
    return Sitting(faces_FE, (keypoint_picture(faces, SIDE, SIDE, stroke=0.2),), masks_FHW)
