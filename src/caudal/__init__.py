"""Train and run models on data and on models larger than memory, inside a budget that is kept.

The public face: the names below and nothing else. Each is loaded when it is first used, so that
`import caudal` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caudal.core.errors import CaudalError as CaudalError
    from caudal.core.errors import DataError as DataError
    from caudal.core.errors import DoesNotFit as DoesNotFit
    from caudal.core.units import Bytes as Bytes
    from caudal.runs.spec import RunSpec as RunSpec
    from caudal.runs.verbs.evaluate import evaluate as evaluate
    from caudal.runs.verbs.explain import explain as explain
    from caudal.runs.verbs.pack import pack as pack
    from caudal.runs.verbs.plan import plan as plan
    from caudal.runs.verbs.predict import predict as predict
    from caudal.runs.verbs.report import report as report
    from caudal.runs.verbs.stream import Stream as Stream
    from caudal.runs.verbs.stream import stream as stream
    from caudal.runs.verbs.train import train as train

_HOMES = {
    "Bytes": "caudal.core.units",
    "CaudalError": "caudal.core.errors",
    "DataError": "caudal.core.errors",
    "DoesNotFit": "caudal.core.errors",
    "RunSpec": "caudal.runs.spec",
    "evaluate": "caudal.runs.verbs.evaluate",
    "explain": "caudal.runs.verbs.explain",
    "pack": "caudal.runs.verbs.pack",
    "plan": "caudal.runs.verbs.plan",
    "predict": "caudal.runs.verbs.predict",
    "report": "caudal.runs.verbs.report",
    "Stream": "caudal.runs.verbs.stream",
    "stream": "caudal.runs.verbs.stream",
    "train": "caudal.runs.verbs.train",
}

__version__: str
__all__ = [
    "Bytes", "CaudalError", "DataError", "DoesNotFit", "RunSpec", "Stream",
    "evaluate", "explain", "pack", "plan", "predict", "report", "stream", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version  # 50 ms

        return version("caudal")
    raise AttributeError(f"module 'caudal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
