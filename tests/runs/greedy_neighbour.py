"""Takes memory in a group until the kernel has killed there, once the run has a checkpoint."""

import sys
import threading
from pathlib import Path

group, events = Path(sys.argv[1]), Path(sys.argv[2])
(group / "cgroup.procs").write_text("0")
control = group / "memory.oom_control"
control = control if control.exists() else group / "memory.events"
taken = []
while "checkpoint_saved" not in (events.read_text() if events.exists() else ""):
    threading.Event().wait(0.05)
while "oom_kill 0" in control.read_text():
    taken.append(bytearray(b"x") * (4 * 2**20))
