"""Where in a pickle of samples numbers and texts are values: a label, an id, but no name and no shape.

A pickle is looked at and never loaded. Known are those of a dict or a tuple with tensors, as `torch.save`
writes them; of others nothing is free.
"""

from __future__ import annotations

import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caudal.data.sample_files.likeness import Span

_HEADS = {  # bytes before the value, whose number does not change its type
    "BINUNICODE": 5, "SHORT_BINUNICODE": 2, "BININT": 1, "BININT1": 1, "BININT2": 1, "BINFLOAT": 1,
}  # fmt: skip
_PUT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GET = ("GET", "BINGET", "LONG_BINGET")


@dataclass
class _Item:
    """What an instruction put on the stack: its place in the list, and whether it alone made it."""

    made_by: int
    alone: bool
    memo: Any = None


def free_values(pickled: bytes) -> list[Span]:
    """The bytes of values that decide neither names nor types nor shapes."""
    steps = [(op, arg, at) for op, arg, at in pickletools.genops(pickled) if at is not None]
    ends = [at for _op, _arg, at in steps[1:]] + [len(pickled)]
    asked = {arg for op, arg, _at in steps if op.name in _GET}
    free = []
    for item in _values(steps):
        op, _arg, at = steps[item.made_by]
        if item.alone and item.memo not in asked and op.name in _HEADS:
            free.append((at + _HEADS[op.name], ends[item.made_by]))
    return free


def _values(steps: Sequence[tuple[Any, Any, int]]) -> list[_Item]:
    """The values of the dict, or of the tuple, that the whole pickle is."""
    stack: list[_Item | None] = []  # `None` is a mark
    found: list[_Item | None] = []
    of: int | None = None  # the dict that they were put into
    memos = 0
    for k, (op, arg, _at) in enumerate(steps):
        if op.name in _PUT:
            if stack and (top := stack[-1]) is not None:
                top.memo = memos if op.name == "MEMOIZE" else arg
            memos += 1
            continue
        if op.name == "STOP":
            whole = stack[-1] if stack else None
            return [item for item in found if item] if whole is not None and of == whole.made_by else []
        takes = [one.name for one in op.stack_before]
        if "mark" in takes:
            above: list[_Item | None] = []
            while stack and stack[-1] is not None:
                above.insert(0, stack.pop())
            if not stack:
                return []
            stack.pop()
            if op.name == "SETITEMS" and stack and stack[-1] is not None:
                if of not in (None, stack[-1].made_by) and len(stack) == 1:
                    return []
                if len(stack) == 1:
                    of, found = stack[-1].made_by, [*found, *above[1::2]]
                continue
            if op.name == "TUPLE" and not stack:
                of, found = k, above
        else:
            count = len(takes)
            if count > len(stack):
                return []
            above = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            if op.name == "SETITEM" and above and above[0] is not None:
                stack.append(above[0])
                if len(stack) == 1:
                    of, found = above[0].made_by, [*found, above[2]]
                continue
            if op.name in ("TUPLE1", "TUPLE2", "TUPLE3") and not stack:
                of, found = k, above
        if op.name == "MARK":
            stack.append(None)
        else:
            stack += [_Item(k, not takes) for _one in op.stack_after]
    return []
