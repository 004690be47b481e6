"""The child that opens files which may be hostile: limits first, then one request after the other.

`python -m caudal.service.sandbox_child LIMITS`. It writes no file. It ends when its server does: its requests
do then, and an alarm ends what hangs.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from caudal.core.errors import CaudalError
from caudal.service.denied import Denied
from caudal.service.serving import Limits

_MOST_FILES = 128
_GRACE_SECONDS = 5


def _bounded(limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends us when it has ended
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    resource.setrlimit(resource.RLIMIT_AS, (int(limits.child_bytes), int(limits.child_bytes)))


def main() -> None:
    """Answer until there is no more request."""
    limits = Limits.model_validate_json(sys.argv[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    _bounded(limits)
    from caudal.service.examine import examine
    from caudal.service.tiles import about, tile

    known: dict[str, Any] = {"examine": examine, "about": about, "tile": tile}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.alarm(int(request["seconds"]) + _GRACE_SECONDS)  # not heeded by Python, but by the kernel
        body = b""
        try:
            found: Any = known[request["what"]](limits, **request["given"])
            answer, body = found if isinstance(found, tuple) else (found, b"")
        except Denied as denied:
            answer = {"error": denied.said}
        except CaudalError as error:
            answer = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        except MemoryError:
            answer = {"error": {"code": "too_costly", "message": "It needs too much memory.", "hint": ""}}
        except Exception as error:  # decoders raise dozens of unrelated kinds
            text = f"It cannot be read ({type(error).__name__})."
            answer = {"error": {"code": "unreadable_file", "message": text, "hint": ""}}
        answers.write(json.dumps({**answer, "bytes": len(body)}).encode() + b"\n" + body)
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    main()
