"""How the C allocator treats what a model gives back.

glibc hands large blocks back to the system and asks for them again: each step then pays for mapping and
clearing the same pages. Measured on a small U-Net, 4 to 5 of 28 ms a training sample and 5 to 40 % of the
inference of a large tile were system time; here it is next to none. Blocks up to 32 MiB (the most that
glibc allows) stay in the heap, and the heap is not trimmed. What is held between steps is not given back,
and the plan counts it.

What kernels keep from their first calls must not lie among such blocks: it cuts the room that they leave into
pieces, and each later step takes a quarter more, each time another amount. `apart` is for those calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGEST_IN_HEAP_BYTES = 32 * 2**20
_SMALL_BYTES, _SERVERS_BYTES = 2**20, 2**18
_ARENAS = 2  # one for the model, one for everybody else; each keeps its own freed blocks

_NEVER = 2**31 - 1  # the largest limit: ends of a heap are kept
# Of the word before a block: it lies outside of the heap, or in an arena of threads.
_MAPPED_BIT, _THREADS_BIT = 2, 4

_kept = False
"""Whether freed blocks stay in the heap now."""
_plugs: list[int] = []
"""Addresses of blocks that nobody uses: they keep others out of what lies free in the heap."""


def settle() -> bool:
    """Set the allocator up; to be called before much is allocated. False where it is not glibc."""
    global _kept
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    _unplug(_plugs)
    _kept = bool(
        mallopt(_M_ARENA_MAX, _ARENAS)
        and mallopt(_M_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _NEVER)
    )
    return _kept


def give_back_at_once() -> None:
    """Let blocks of a mebibyte and more go back to the system when they are freed; `settle` undoes it.

    For a run that would not fit otherwise: what lies free in the heap, in pieces of sizes that nobody asks
    for, is a third of a training step's peak. It takes up to twice the time.
    """
    global _kept
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _SMALL_BYTES)
        _kept = False
        trim()
        _plugs.extend(_plugged())


def let_go() -> None:
    """For a process that lives long and computes nothing, as a server: what is freed goes back to the system.

    `settle` is for runs. In a server, whatever was large for a moment would stay.
    """
    global _kept
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _SERVERS_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _SERVERS_BYTES)
        _kept = False


def _plugged() -> list[int]:
    """Take the free pieces of the heap that large blocks would fit into: malloc looks there before it maps.

    They are not written to, so that of what was trimmed next to nothing is held again. Needs the threshold of
    `give_back_at_once`; gives the addresses, for `_unplug`.
    """
    libc, found, size = _libc(), list[int](), LARGEST_IN_HEAP_BYTES
    while size >= _SMALL_BYTES:
        address = libc.malloc(size)
        if not address:
            break
        word = ctypes.c_size_t.from_address(address - ctypes.sizeof(ctypes.c_size_t))
        if word.value & _MAPPED_BIT:
            libc.free(address)
            size //= 2
        else:
            found.append(address)
    return found


def _unplug(plugs: list[int]) -> None:
    libc = _libc()
    while plugs:
        libc.free(plugs.pop())


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


@contextlib.contextmanager
def apart(is_first: bool = True) -> Iterator[None]:
    """Lay large blocks outside of the heap, for the first calls of kernels: what these keep is small.

    Measured on a U-Net of width 16, batch 8 of 192²: later steps hold 132 to 134 MiB, where 162 to 177 were
    held without it. Where blocks are given back at once, or it is not the first time, nothing is changed.
    """
    if not (is_first and _kept):
        yield
        return
    give_back_at_once()
    try:
        yield
    finally:
        settle()


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """Inside the `with` the heap is as that of a new process: what was freed before is left alone.

    For measurements one after the other: of a transformer, batches of 32 held 177 MiB in a process of their
    own, and 204 to 210 among what those of 4, 8 and 16 had left.
    """
    plugs: list[int] = []
    trim()
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
        plugs = _plugged()
        if _kept:
            mallopt(_M_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            _unplug(plugs)


def trim() -> None:
    """Give the heap's free pages back to the system; for the seam between two phases, not for a loop.

    What one phase freed lies in pieces of other sizes than those that the next one asks for. The library's
    own trim leaves what lies free at the end of the threads' arena: up to 50 MiB after data were looked at.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        if _kept:
            _trim_threads_arena()


def _trim_threads_arena() -> None:
    """Free a block of the threads' arena, while the limit from which a free end is given back is low."""
    libc, mallopt = _libc(), ctypes.CDLL("libc.so.6").mallopt

    def free_one() -> None:
        address = libc.malloc(_SERVERS_BYTES)
        if address:
            word = ctypes.c_size_t.from_address(address - ctypes.sizeof(ctypes.c_size_t))
            found.append(bool(word.value & _THREADS_BIT))
            libc.free(address)

    found = [False]
    mallopt(_M_TRIM_THRESHOLD, _SERVERS_BYTES)
    try:
        for _turn in range(2 * _ARENAS):  # arenas are dealt out to new threads in turns
            if not found[-1]:
                thread = threading.Thread(target=free_one)
                thread.start()
                thread.join()
    finally:
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
