"""The ledger: who may hold how many bytes. The only one."""

from __future__ import annotations

import threading
from types import TracebackType

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes


class Lease:
    """Bytes granted to a holder, until they are given back."""

    def __init__(self, budget: Budget, holder: str, nbytes: Bytes) -> None:
        self._budget = budget
        self.holder = holder
        self.bytes = nbytes
        self._open = True

    def release(self) -> None:
        """Give the bytes back; a second time is a mistake."""
        assert self._open, f"{self.holder} was released twice"
        self._open = False
        self._budget._give_back(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self.release()


class Budget:
    """Bytes that may be held, granted by name. The sum of open leases never passes `total`.

    Safe to use from several threads.
    """

    def __init__(self, total: Bytes) -> None:
        self.total = total
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def held(self) -> Bytes:
        """The sum of the open leases."""
        with self._lock:
            return Bytes(sum(self._held.values()))

    @property
    def left(self) -> Bytes:
        """What may still be granted."""
        return Bytes(self.total - self.held)

    def holders(self) -> dict[str, Bytes]:
        """Bytes by holder, largest first."""
        with self._lock:
            rows = sorted(self._held.items(), key=lambda row: -row[1])
        return {name: Bytes(nbytes) for name, nbytes in rows}

    def lease(self, holder: str, nbytes: int) -> Lease:
        """Grant `nbytes` to `holder`, or refuse; never waits.

        Raises:
            DoesNotFit: the bytes are not there.
        """
        assert nbytes >= 0
        with self._lock:
            left = self.total - sum(self._held.values())
            if nbytes > left:
                raise DoesNotFit(
                    _("{holder} needs {needed}, but {left} of the budget of {total} are left.").format(
                        holder=holder, needed=Bytes(nbytes), left=Bytes(left), total=self.total
                    ),
                    _("Give a larger budget with --ram."),
                    holder=holder,
                    needed=nbytes,
                    left=left,
                )
            self._held[holder] = self._held.get(holder, 0) + nbytes
        return Lease(self, holder, Bytes(nbytes))

    def _give_back(self, lease: Lease) -> None:
        with self._lock:
            left = self._held.pop(lease.holder, 0) - lease.bytes
            if left:
                self._held[lease.holder] = left
