"""Caudal under test: `caudal.stream` through its public face, in the place where a peer stands.

`convert` writes a pack. Options are arguments of `stream`; `patch_px` is taken from a set of scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import child

ENDLESS_EPOCHS = 1000
ARRANGEMENT: dict[str, Any] = {
    "ragged": "file",
    "chips": "rows",
    "tensors": "rows",
    "graphs": "rows",
    "table": "rows",
}
NAMES = {"image": "x"}  # of pictures and scenes; the checks know one name


def batches(job: child.Job) -> Iterator[Any]:
    """Batches of one epoch, or of many without a break."""
    import caudal

    options: dict[str, Any] = {"ram": "128MiB", "threads": 2} | dict(job.options)
    if options.pop("joined", False) and not job.check:  # the check compares single graphs
        options["join_graphs"] = True
    if not job.own and job.kind in ARRANGEMENT:
        options.setdefault("samples", ARRANGEMENT[job.kind])
    if job.kind == "photographs":
        options["resize"] = tuple(options.get("resize", (224, 224)))  # JSON knows no tuples
    if job.kind == "scenes":
        options.setdefault("patch_px", job.facts["patch_px"])
    epochs = 1 if job.check else ENDLESS_EPOCHS
    with caudal.stream(
        job.own or job.set, batch_size=job.batch, seed=job.seed, epochs=epochs, **options
    ) as stream:
        yield from stream


def columns(batch: Any) -> dict[str, Any]:
    """Fields with one entry a sample."""
    fields = {NAMES.get(name, name): batch[name] for name in batch}
    return {name: list(value) if hasattr(value, "ends") else value for name, value in fields.items()}


def arrays(batch: Any) -> list[Any]:
    """Everything in a batch; ragged fields as they lie in memory."""
    fields = [batch[name] for name in batch]
    return [part for value in fields for part in (value if hasattr(value, "ends") else [value])]


def convert(job: child.Job) -> None:
    """Write a pack into `job.own`."""
    import caudal

    caudal.pack(job.set, out=job.own, samples=ARRANGEMENT.get(job.kind, "auto"))


def imports(_job: child.Job) -> tuple[str, ...]:
    """What `caudal.stream` loads."""
    return ("torch", "caudal.runs.verbs.stream")


if __name__ == "__main__":
    child.main(child.Loader(batches, imports, columns, lambda batch: batch.size, arrays, convert))
