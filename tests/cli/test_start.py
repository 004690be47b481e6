"""The command begins without the C library's caches for threads, as whoever started it knows it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

_TOLD = """
import json, os, sys
from caudal.cli import entry
entry.main = lambda: print(json.dumps([os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.orig_argv[-2:]]))
from caudal.cli.start import main
main()
"""
_JOINED = """
import ctypes
from caudal.cli import entry
def joined():
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = sorted(libc.malloc(888) for _ in range(200))
    rows = zip(blocks, blocks[1:], blocks[2:])
    first, second = next((b, c) for a, b, c in rows if b - a == c - b == 896)  # before them lies one in use
    libc.free(second)
    libc.free(first)
    print("yes" if ctypes.c_size_t.from_address(first - 8).value & ~7 >= 2 * 896 else "no")
entry.main = joined
from caudal.cli.start import main
main()
"""


def _said(code: str, *words: str, **variables: str) -> tuple[int, str]:
    """The process number of a child, and what it says."""
    env = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"} | variables
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], env=env, stdout=subprocess.PIPE, text=True
    ) as child:
        return child.pid, child.communicate()[0].strip()


of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")


@pytest.mark.parametrize("found", ["raise ValueError", "return None", "return 'musl 1.2'"])
def test_with_another_c_library_it_goes_on_as_it_is(found: str) -> None:
    other = f"def another(_name):\n    {found}\nimport os\nos.confstr = another\n"
    number, said = _said(other + _TOLD, "one")
    assert json.loads(said)[:2] == [number, None]


@of_glibc
def test_the_same_process_begins_anew_with_the_same_words() -> None:
    number, said = _said(_TOLD, "one", "two words")
    assert json.loads(said) == [number, "glibc.malloc.tcache_count=0", ["one", "two words"]]


@of_glibc
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("glibc.malloc.arena_max=4", "glibc.malloc.arena_max=4:glibc.malloc.tcache_count=0"),
        ("glibc.malloc.tcache_count=7", "glibc.malloc.tcache_count=7"),
    ],
)
def test_what_somebody_has_set_stays(given: str, wanted: str) -> None:
    assert json.loads(_said(_TOLD, GLIBC_TUNABLES=given)[1])[1] == wanted


@of_glibc
def test_small_freed_neighbours_are_joined() -> None:
    assert _said(_JOINED)[1] == "yes"
    assert _said(_JOINED, GLIBC_TUNABLES="glibc.malloc.tcache_count=7")[1] == "no"
