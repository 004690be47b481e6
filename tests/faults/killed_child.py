"""Trains the spec in argv[1] into argv[2] and kills itself, without warning, at step argv[3] (0: never)."""

import os
import signal
import sys
from pathlib import Path

from caudal.runs.machine import settle

settle()

from caudal.core.events import Event, StepDone  # noqa: E402
from caudal.runs.spec import RunSpec  # noqa: E402
from caudal.runs.verbs.train import train  # noqa: E402


def kill_at(step: int) -> None:
    """Die like a process that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Train until the step."""
    last = int(sys.argv[3])

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == last:
            kill_at(last)

    train(RunSpec.from_toml(Path(sys.argv[1])), out=sys.argv[2], listeners=[listen])


if __name__ == "__main__":
    main()
