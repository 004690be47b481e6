"""The doctor's view of settings that stop a run without any memory being short.

Limits on bytes are with `memory`; these are counts, and how the kernel gives memory out.
"""

from __future__ import annotations

from pathlib import Path

from caudal.core.messages import _
from caudal.core.units import Bytes
from caudal.memory import kernel, rlimits
from caudal.runs.doctor.fact import Fact, fact

_FEW_FILES = 1024
_FEW_TASKS = 512
_FEW_MAPPINGS = 65530  # the kernel's own default
_ROOT = Path("/")


def of_process(root: Path = _ROOT) -> list[Fact]:
    """What `ulimit` has set."""
    found = rlimits.read(root)
    if found is None:
        return [fact(_("limits of this process"), None)]
    facts = [
        fact(_("locked memory"), _or_none(found.locked.soft, size=True)),
        fact(
            _("open files"),
            _or_none(found.files.soft),
            fault=_below(found.files.soft, _FEW_FILES),
            mend=_("Sets of many files may fail to open: ulimit -n {count}.").format(count=_FEW_FILES),
        ),
        fact(
            _("processes and threads"),
            _or_none(found.tasks.soft),
            fault=_below(found.tasks.soft, _FEW_TASKS),
            mend=_("Threads may fail to start: ulimit -u {count}.").format(count=_FEW_TASKS),
        ),
    ]
    if found.resident_set.soft is not None:
        facts.append(
            fact(
                _("resident set"),
                Bytes(found.resident_set.soft),
                fault=True,
                mend=_("Linux does not keep this limit (ulimit -m): give --ram instead."),
            )
        )
    return facts


def of_kernel(root: Path = _ROOT) -> list[Fact]:
    """What the kernel is set to. Strict overcommitting is a limit, and shown with the others."""
    found = kernel.read(root)
    return [
        fact(_("overcommitting (vm.overcommit_memory)"), found.overcommit),
        fact(
            _("mappings (vm.max_map_count)"),
            found.mappings,
            fault=_below(found.mappings, _FEW_MAPPINGS),
            mend=_("Sets of many files may fail to open: sysctl vm.max_map_count={count}.").format(
                count=_FEW_MAPPINGS
            ),
        ),
        fact(_("huge pages"), found.huge_pages),
    ]


def _below(count: int | None, least: int) -> bool:
    return count is not None and count < least


def _or_none(count: int | None, size: bool = False) -> str:
    if count is None:
        return _("none")
    return str(Bytes(count)) if size else str(count)
