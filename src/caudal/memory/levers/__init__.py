"""Changes that trade something for memory: one file each, behind the contract in `base.py`.

The first rows are turned inside one search, in order of price: what comes first costs least. `precision` and
`patch` change numbers, and everything is measured again for them. The last two are of inference.
"""

from __future__ import annotations

from caudal.core.registry import Registry

LEVERS = Registry(
    "lever",
    "caudal.levers",
    {
        "shuffle_bytes": "caudal.memory.levers.shuffle_bytes:ShuffleBytes",
        "prefetch": "caudal.memory.levers.prefetch:Prefetch",
        "threads": "caudal.memory.levers.threads:Threads",
        "micro_batch": "caudal.memory.levers.micro_batch:MicroBatch",
        "heap": "caudal.memory.levers.heap:Heap",
        "checkpointing": "caudal.memory.levers.checkpointing:Checkpointing",
        "optimizer_state": "caudal.memory.levers.optimizer_state:OptimizerState",
        "precision": "caudal.memory.levers.precision:Precision",
        "patch": "caudal.memory.levers.patch:Patch",
        "tile": "caudal.memory.levers.tile:Tile",
        "weights": "caudal.memory.levers.weights:Weights",
    },
)
