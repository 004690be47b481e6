"""What each step of a sequence, or node of a graph, gave to a score: a record, and where a run keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.files import write_whole

Values = npt.NDArray[np.float64]

EXPLAINED = "explained.json"
_MOST_CURVES = 3
_ARRAYS = ("features", "values", "edges")


@dataclass(frozen=True)
class ExplainedRows:
    """A sample: its `features` (places, F) as the model took them, and what each place gave to the score.

    `edges` (E, 2) are pairs of nodes, `None` for a sequence. `probability` is of the class `target`, or what
    was predicted of a number of that name. `columns` are the numbers of the features; none: from 0 on.
    """

    name: str
    target: str
    probability: float
    features: Values
    values: Values
    edges: npt.NDArray[np.int64] | None
    missed: float
    fall: float
    fall_by_chance: float
    truth: str | None = None
    columns: tuple[int, ...] = ()

    def drawn(self) -> ExplainedRows:
        """With the features alone that are drawn: those of a sequence that vary most."""
        if self.edges is not None:
            return replace(self, features=self.features[:, :0])
        some = np.argsort(-np.nan_to_num(self.features).std(0), kind="stable")[:_MOST_CURVES]
        numbers = self.columns or tuple(range(self.features.shape[1]))
        return replace(
            self, features=self.features[:, some], columns=tuple(numbers[k] for k in some.tolist())
        )


def keep(folder: Path, items: Sequence[ExplainedRows]) -> None:
    """Write what is drawn of them into a run's folder."""
    rows = []
    for item in items:
        row = asdict(item.drawn())
        # What is no number is none in JSON either.
        row["features"] = [
            [v if np.isfinite(v) else None for v in place] for place in row["features"].tolist()
        ]
        row["values"] = row["values"].tolist()
        row["edges"] = None if item.edges is None else item.edges.tolist()
        rows.append(row)
    text = json.dumps(rows, ensure_ascii=False) + "\n"
    write_whole(folder / EXPLAINED, lambda part: part.write_text(text, encoding="utf-8"))


def kept(folder: Path) -> list[ExplainedRows]:
    """What a run's folder has; nothing where there is none, or another version wrote it."""
    try:
        rows: list[dict[str, Any]] = json.loads((folder / EXPLAINED).read_text(encoding="utf-8"))
        return [_read(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _read(row: dict[str, Any]) -> ExplainedRows:
    plain = {name: value for name, value in row.items() if name not in _ARRAYS}
    values = np.array(row["values"], np.float64)
    edges = None if row["edges"] is None else np.array(row["edges"], np.int64).reshape(-1, 2)
    features = np.array(row["features"], np.float64).reshape(len(values), -1 if len(values) else 0)
    plain["columns"] = tuple(plain["columns"])
    return ExplainedRows(**plain, features=features, values=values, edges=edges)
