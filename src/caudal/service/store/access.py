"""Who may ask, what was asked under which name, and what was done: keys, idempotency, the audit log.

Hashing of keys belongs to the web side; no key is ever given to this file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from caudal.core.messages import _
from caudal.service.errors import Conflict
from caudal.service.ids import new_id
from caudal.service.records import ApiKey, AuditEntry, Kept
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.engine import Database
from caudal.service.store.jobs import key_was_used


class Keys:
    """API keys by their hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, scopes: Sequence[str], hash: str, expires: float | None = None) -> ApiKey:
        """Register a key.

        Raises:
            Conflict: it is registered already.
        """
        values = {
            "id": new_id(), "name": name, "scopes": list(scopes), "hash": hash, "created": time.time(),
            "expires": expires, "revoked": None, "last_used": None,
        }  # fmt: skip
        try:
            with self._database.writing() as connection:
                connection.execute(sa.insert(t.api_keys).values(**values))
        except IntegrityError:
            raise Conflict(_("The key is registered already."), _("Make another one.")) from None
        return ApiKey.model_validate(values)

    def by_hash(self, hash: str) -> ApiKey | None:
        """The key of that hash, revoked and expired ones too; `None` where there is none."""
        query = sa.select(t.api_keys).where(t.api_keys.c.hash == hash)
        with self._database.reading() as connection:
            return next(iter(rows.many(connection, query, ApiKey)), None)

    def list(self, limit: int = 50, after: str = "") -> list[ApiKey]:
        """The oldest first; `after` is the id of the last one of the page before."""
        k = t.api_keys.c
        query = sa.select(t.api_keys).where(k.id > after).order_by(k.id).limit(rows.page(limit))
        with self._database.reading() as connection:
            return rows.many(connection, query, ApiKey)

    def revoke(self, key_id: str) -> ApiKey:
        """From now on it opens nothing.

        Raises:
            NotFound: there is none of that name.
        """
        k = t.api_keys.c
        with self._database.writing() as connection:
            connection.execute(
                sa.update(t.api_keys).where(k.id == key_id, k.revoked.is_(None)).values(revoked=time.time())
            )
            return rows.one(connection, sa.select(t.api_keys).where(k.id == key_id), ApiKey, key_id)

    def used(self, key_id: str) -> None:
        """Note that it was used now."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(t.api_keys).where(t.api_keys.c.id == key_id).values(last_used=time.time())
            )


class OnceOnly:
    """Answers kept under a client's own key, so that the same request twice is done once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, owner: str, key: str) -> Kept | None:
        """What was answered, or `None`. Status 0: a job was made, and its answer is the job."""
        k = t.idempotency_keys.c
        columns = [k[name] for name in Kept.model_fields]
        with self._database.reading() as connection:
            found = rows.many(connection, sa.select(*columns).where(k.owner == owner, k.key == key), Kept)
        return next(iter(found), None)

    def put(self, owner: str, key: str, fingerprint: str, status: int, body: Any) -> None:
        """Keep an answer; the first one stays.

        Raises:
            Conflict: the key stands for another request.
        """
        values = {
            "owner": owner, "key": key, "fingerprint": fingerprint, "status": status, "body": body,
            "job_id": None, "created": time.time(),
        }  # fmt: skip
        try:
            with self._database.writing() as connection:
                connection.execute(sa.insert(t.idempotency_keys).values(**values))
        except IntegrityError:
            kept = self.get(owner, key)
            if kept is None or kept.fingerprint != fingerprint:
                raise key_was_used() from None

    def sweep(self, older_than_seconds: float) -> int:
        """Forget what is that old; how many."""
        where = t.idempotency_keys.c.created < time.time() - older_than_seconds
        with self._database.writing() as connection:
            return connection.execute(sa.delete(t.idempotency_keys).where(where)).rowcount


class Audit:
    """What was done by whom; entries are added, never changed, and forgotten when they are old."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        actor: str,
        action: str,
        object: str = "",
        address: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """One entry; `detail` must hold no secret."""
        values = {
            "time": time.time(), "actor": actor[:200], "action": action[:100], "object": object[:300],
            "address": address[:100], "detail": dict(detail or {}),
        }  # fmt: skip
        with self._database.writing() as connection:
            connection.execute(sa.insert(t.audit).values(**values))

    def sweep(self, older_than_seconds: float, most: int = 5000) -> int:
        """Forget up to `most` of what is that old; how many. Only the oldest entries are looked at."""
        a = t.audit.c
        oldest = sa.select(a.id).order_by(a.id).limit(most)
        old = a.id.in_(oldest) & (a.time < time.time() - older_than_seconds)
        with self._database.writing() as connection:
            return connection.execute(sa.delete(t.audit).where(old)).rowcount

    def list(self, limit: int = 50, before: int | None = None) -> list[AuditEntry]:
        """The newest first; `before` is the id of the last one of the page before."""
        query = sa.select(t.audit).order_by(t.audit.c.id.desc()).limit(rows.page(limit))
        if before is not None:
            query = query.where(t.audit.c.id < before)
        with self._database.reading() as connection:
            return rows.many(connection, query, AuditEntry)
