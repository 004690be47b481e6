"""The doctor's view of host memory: every limit, what is held and waited for, and what others left behind.

`root` is where recorded trees lie in tests. What the figures mean is said by the meters in `caudal.memory`.
"""

from __future__ import annotations

from pathlib import Path

from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.memory import cgroup, limits, meters, pressure, shared_memory
from caudal.memory.cgroup_records import Group
from caudal.memory.limits import Limit
from caudal.memory.pressure import Pressure
from caudal.runs.doctor.fact import Fact, fact
from caudal.runs.machine import left_by_others, ram_budget

_SMALL_SHM = Bytes(256 * MIB)
_MUCH_SWAP = Bytes(256 * MIB)
_FULL_SHARE = 0.9
_MUCH_WAITING_PERCENT = 5.0
_ROOT = Path("/")


def limits_of_ram(root: Path = _ROOT) -> list[Fact]:
    """Every limit on the way up, the one that counts, and the budget that follows."""
    group = cgroup.read(root)
    every = limits.ram_limits(root, group)
    facts = [_limit(limit) for limit in every]
    if not group.exact:
        facts.append(
            fact(
                _("memory group"),
                _("is not mounted here"),
                fault=True,
                mend=_("A smaller limit may be hidden: give --ram if you know one."),
            )
        )
    counting = min((limit for limit in every if limit.bytes is not None), key=_bytes, default=None)
    if counting is not None:
        facts.append(fact(_("the limit that counts"), f"{counting.name}: {counting.bytes}"))
    return [*facts, *_budget(root)]


def _limit(limit: Limit) -> Fact:
    value = _("none") if limit.bytes is None else str(limit.bytes)
    if limit.bytes is not None and limit.held is not None:
        value = _("{limit}, {held} held").format(limit=limit.bytes, held=limit.held)
    strange = limit.bytes is not None and limit.name.startswith(("rlimit", "commit"))
    return fact(
        _("limit: {name}").format(name=limit.name),
        value,
        fault=strange,
        mend=_(
            "It counts reserved bytes, not held ones, and may stop a run inside its budget: {how}."
        ).format(
            how="vm.overcommit_memory = 0"
            if limit.name.startswith("commit")
            else "ulimit -v unlimited -d unlimited"
        ),
    )


def _bytes(limit: Limit) -> int:
    return int(limit.bytes or 0)


def _budget(root: Path) -> list[Fact]:
    found = left_by_others(root)
    if found is None:
        return [
            fact(
                _("available memory"), None, fault=True, mend=_("No meter shows any limit here: give --ram.")
            )
        ]
    left, others = found
    return [
        fact(_("available memory"), limits.available_ram(root)),
        fact(
            _("default ram budget"),
            _("{budget}; others hold {others}").format(budget=ram_budget(None, root), others=others)
            if others
            else ram_budget(None, root),
            fault=others > left,
            mend=_("Others hold the larger part of what could be taken: end them for a larger one."),
        ),
    ]


def state(root: Path = _ROOT) -> list[Fact]:
    """What is charged, swapped, waited for, killed and shared."""
    group = cgroup.read(root)
    return [
        *_charged(group),
        _swap(root, group),
        *_kills(group),
        _waiting(_("memory pressure of the machine"), pressure.of_machine(root)),
        _waiting(_("memory pressure of the group"), pressure.of_group(root)),
        _peaks(),
        _shared(root),
    ]


def _charged(group: Group) -> list[Fact]:
    facts = [fact(_("charged to this process"), meters.charged_bytes())]
    charge = group.charge
    if charge is None:
        return facts
    value = _("{charged} charged, {dirty} to be written, {kernel} of the kernel, {clean} can be taken back")
    value = value.format(
        charged=charge.charged,
        dirty=charge.dirty,
        kernel="?" if charge.kernel is None else charge.kernel,
        clean=charge.reclaimable,
    )
    return [*facts, fact(_("held by this group"), value)]


def _swap(root: Path, group: Group) -> Fact:
    swap = limits.swap(root, group)
    if swap is None:
        return fact(_("swap"), None)
    return fact(
        _("swap"),
        _("{used} of {size} used").format(used=swap.used, size=swap.allowed) if swap.allowed else _("none"),
        fault=swap.used > _MUCH_SWAP,
        mend=_("A run that swaps waits for the disk: end what fills the memory, or give a smaller --ram."),
    )


def _kills(group: Group) -> list[Fact]:
    kills = fact(
        _("kills for memory in this group"),
        group.oom_kills,
        fault=bool(group.oom_kills),
        mend=_("Give a smaller --ram, or end the others in this group."),
    )
    facts = [kills]
    if group.kills_together:
        facts.append(
            fact(
                _("a kill for memory"),
                _("ends the whole group"),
                fault=True,
                mend=_("Nothing is left to resume the run: start it again, or set memory.oom.group to 0."),
            )
        )
    if group.kills_off:
        facts.append(
            fact(
                _("a kill for memory"),
                _("is switched off"),
                fault=True,
                mend=_("Past the limit a run stands still: write 0 to the group's memory.oom_control."),
            )
        )
    limiting = group.limiting
    if limiting is not None and limiting.high == limiting.limit:
        facts.append(
            fact(
                _("times that memory.high slowed this group down"),
                limiting.throttled,
                fault=bool(limiting.throttled),
                mend=_("Give a smaller --ram, or raise memory.high."),
            )
        )
    return facts


def _waiting(name: str, found: Pressure | None) -> Fact:
    if found is None:
        return fact(name, None)
    value = _("{some:.1f} % in 10 s, {some_60:.1f} % in 60 s, {seconds:.1f} s in all").format(
        some=found.some, some_60=found.some_60, seconds=found.some_seconds
    )
    return fact(
        name,
        value,
        fault=found.some_60 >= _MUCH_WAITING_PERCENT,
        mend=_("Work stands still for want of memory: end what fills it, or give a smaller --ram."),
    )


def _peaks() -> Fact:
    resettable = meters.PeakMeter().resettable
    return fact(
        _("exact peaks"),
        _("yes") if resettable else _("no"),
        fault=not resettable,
        mend=_("/proc/self/clear_refs is not writable here: peaks count from the start of the process."),
    )


def _shared(root: Path) -> Fact:
    found = shared_memory.read(root)
    if found is None:
        return fact("/dev/shm", None)
    small = found.size < _SMALL_SHM
    full = found.used > _FULL_SHARE * found.size
    return fact(
        "/dev/shm",
        _("{used} of {size} used").format(used=found.used, size=found.size),
        fault=small or full,
        mend=_("It is small; Caudal does not use it, other loaders with workers would die of it.")
        if small
        else _("It is nearly full: remove what ended programs left there."),
    )
