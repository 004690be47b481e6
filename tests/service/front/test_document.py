"""The whole OpenAPI document, fuzzed with what it allows and what it does not: all answers are as it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from caudal.service.serving import Limits
from tests.data.sets import write_tiff
from tests.service.front.conftest import QUIET, Front, listening

SECONDS = 20.0
LEAST = 5
"""So many requests of each kind are sent to every operation, whatever time they take."""
TAKE_NOTHING = {"GET /livez", "GET /readyz"}
"""There is one request to make, and nothing in it that could be wrong."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
_SEEDED = {"job_id", "run_id", "dataset_id", "project_id", "raster_id"}


@pytest.fixture
def fuzzed(make_front: Callable[..., Front], root: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    """A front whose ids are known, and whose planner plans nothing: what it says is tested elsewhere."""
    import numpy as np

    write_tiff(root / "roofs" / "map.tif", np.zeros((64, 64, 3), np.uint8))
    limits = Limits.model_validate({**QUIET.model_dump(), "stream_seconds": 0.05})
    front = make_front(limits=limits)
    front.dataset("roofs", root="scenes", path="roofs")
    front.dataset("sent")
    front.job()

    def no_child(*_given: object) -> None:
        from caudal.core.errors import DoesNotFit

        raise DoesNotFit("It does not fit.", "Give more.")

    monkeypatch.setattr(front.app.context.planner, "_said", no_child)
    return front


def _ids(front: Front) -> dict[str, list[str]]:
    datasets = [one["id"] for one in front.get("/datasets").json()["items"]]
    raster = front.post("/rasters", {"dataset": datasets[0], "file": "map.tif"}).json()["id"]
    jobs = [one["id"] for one in front.get("/jobs").json()["items"]]
    return {
        "job_id": jobs,
        "run_id": jobs,
        "dataset_id": datasets,
        "project_id": [one["id"] for one in front.get("/projects").json()["items"]],
        "raster_id": [raster],
    }


def test_every_answer_to_anything_is_as_the_document_says(fuzzed: Front) -> None:
    with listening(fuzzed) as url:
        _ask_all(fuzzed, url)


def _ask_all(fuzzed: Front, url: str) -> None:
    schema = schemathesis.openapi.from_dict(fuzzed.get("/openapi.json").json())
    ids, began = _ids(fuzzed), time.monotonic()
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) > 40
    wrong: list[str] = []
    count: dict[tuple[str, str], int] = {}
    for number, operation in enumerate(operations):
        for half, mode in enumerate((GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):
            until = began + SECONDS * (number + (half + 1) / 2) / len(operations)
            asker = Asker(url, fuzzed.key, ids, until)
            try:
                settings(
                    max_examples=15,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )(given(case=operation.as_strategy(generation_mode=mode))(asker.function()))()
            except Unsatisfiable:
                pass  # its name is below
            except (Exception, BaseExceptionGroup) as error:
                told = "; ".join(str(one) for one in getattr(error, "exceptions", [error]))
                wrong.append(f"{operation.label} ({mode.value}): {told}"[:1500])
            count[operation.label, mode.value] = asker.asked
    assert not wrong, "\n\n".join(wrong)
    few = {label for (label, _mode), asked in count.items() if asked < LEAST}
    assert few == TAKE_NOTHING


class Asker:
    """Asks what it is given until its time is up, and a few more; most of the ids lead somewhere."""

    def __init__(self, url: str, key: str, ids: dict[str, list[str]], until: float) -> None:
        self.url, self.ids, self.until, self.asked = url, ids, until, 0
        self.headers = {"Authorization": f"Bearer {key}"}

    def function(self) -> Callable[[schemathesis.Case], None]:
        def ask(case: schemathesis.Case) -> None:
            if self.asked >= LEAST and time.monotonic() > self.until:
                return
            for name in _SEEDED & set(case.path_parameters or {}):
                if self.asked % 3 and self.ids[name]:
                    case.path_parameters[name] = self.ids[name][self.asked % len(self.ids[name])]
            self.asked += 1
            answer = case.call(base_url=self.url, headers=self.headers)
            case.validate_response(answer, checks=CHECKS)

        return ask
