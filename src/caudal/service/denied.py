"""What the child of `sandbox.py` says of a file that is not taken."""

from __future__ import annotations


class Denied(Exception):
    """A file that is not taken; `code` says on what ground."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.said = {"code": code, "message": message, "hint": hint}
