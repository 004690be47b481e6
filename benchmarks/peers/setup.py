"""Makes the peers' environments by venv and pip, pinned: `python -m benchmarks.peers.setup [NAME…]`.

They lie in `build/peers`, or in the folder that `CAUDAL_PEERS` names. `torch` holds SPDL, Grain, LitData and
WebDataset; `tensorflow` holds tf.data; `memory` MONAI, Lightning and Accelerate; `mlflow` the server
that runs are told to. The other peers run in Caudal's own environment. Needs only Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("torch", "tensorflow", "memory", "anomaly", "mlflow")


def home() -> Path:
    """The folder of the environments."""
    return Path(os.environ.get("CAUDAL_PEERS", HERE.parents[1] / "build" / "peers"))


def python_of(name: str) -> Path:
    """The interpreter of an environment, whether or not it is there."""
    return home() / name / "bin" / "python"


def make(name: str) -> None:
    """Make the environment `name`, or bring it up to its list."""
    python = python_of(name)
    if not python.exists():
        venv.create(home() / name, with_pip=True)
    for requirements, more in (
        (f"requirements-{name}.txt", []),
        (f"requirements-{name}-alone.txt", ["--no-deps"]),
    ):
        if (HERE / requirements).exists():
            install = [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                *more,
                "--requirement",
                str(HERE / requirements),
            ]
            subprocess.run(install, check=True)
    print(f"{name}: {python}", flush=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        make(chosen)
