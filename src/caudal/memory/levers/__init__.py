"""Changes that trade something for memory: one file each, behind the contract in `base.py`.

The rows stand in order of price: what comes first costs least.
"""

from __future__ import annotations

from caudal.core.registry import Registry

LEVERS = Registry(
    "lever",
    "caudal.levers",
    {
        "shuffle_bytes": "caudal.memory.levers.shuffle_bytes:ShuffleBytes",
        "micro_batch": "caudal.memory.levers.micro_batch:MicroBatch",
        "thrift": "caudal.memory.levers.thrift:Thrift",
    },
)
