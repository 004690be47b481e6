"""Projects, and what belongs to them: data sets, runs, models."""

from __future__ import annotations

import builtins
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from caudal.core.messages import _
from caudal.service.errors import Conflict
from caudal.service.ids import new_id
from caudal.service.records import Dataset, Model, Project, Run
from caudal.service.store import rows
from caudal.service.store import tables as t
from caudal.service.store.engine import Database


class Projects:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str) -> Project:
        """A new project.

        Raises:
            Conflict: there is one of that name.
        """
        project_id = new_id()
        values = {"id": project_id, "name": name, "created": time.time()}
        try:
            with self._database.writing() as connection:
                connection.execute(sa.insert(t.projects).values(**values))
        except IntegrityError:
            raise _taken(name) from None
        return Project.model_validate(values)

    def get(self, project_id: str) -> Project:
        """One project.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.reading() as connection:
            return rows.one(connection, _query().where(t.projects.c.id == project_id), Project, project_id)

    def list(self, limit: int = 50, after: str = "") -> list[Project]:
        """The oldest first; `after` is the id of the last one of the page before."""
        query = _query().where(t.projects.c.id > after).order_by(t.projects.c.id).limit(rows.page(limit))
        with self._database.reading() as connection:
            return rows.many(connection, query, Project)

    def rename(self, project_id: str, name: str) -> Project:
        """Give a project another name.

        Raises:
            NotFound: there is no such project.
            Conflict: there is one of that name.
        """
        try:
            with self._database.writing() as connection:
                where = t.projects.c.id == project_id
                if connection.execute(sa.update(t.projects).where(where).values(name=name)).rowcount != 1:
                    raise rows.missing(project_id)
        except IntegrityError:
            raise _taken(name) from None
        return self.get(project_id)

    def delete(self, project_id: str) -> builtins.list[Dataset]:
        """Forget a project without jobs, and its data sets, which are given; their files are not touched.

        Raises:
            NotFound: there is no such project.
            Conflict: it has jobs.
        """
        with self._database.writing() as connection:
            if connection.execute(
                sa.select(t.jobs.c.id).where(t.jobs.c.project_id == project_id).limit(1)
            ).first():
                raise Conflict(_("The project has jobs."), _("What jobs did is kept with their project."))
            own = t.datasets.c.project_id == project_id
            gone = rows.many(connection, sa.select(t.datasets).where(own), Dataset)
            connection.execute(sa.delete(t.datasets).where(own))
            if connection.execute(sa.delete(t.projects).where(t.projects.c.id == project_id)).rowcount != 1:
                raise rows.missing(project_id)
            return gone


class Datasets:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        project_id: str,
        name: str,
        kind: str,
        path: str,
        bytes: int = 0,
        facts: dict[str, Any] | None = None,
    ) -> Dataset:
        """Register a folder or a file, which was already found to be allowed.

        Raises:
            NotFound: there is no such project.
            Conflict: the project has one of that name.
        """
        values = {
            "id": new_id(), "project_id": project_id, "name": name, "kind": kind, "path": path,
            "bytes": bytes, "facts": facts or {}, "created": time.time(),
        }  # fmt: skip
        made = Dataset.model_validate(values)
        try:
            with self._database.writing() as connection:
                if not connection.execute(
                    sa.select(t.projects.c.id).where(t.projects.c.id == project_id)
                ).first():
                    raise rows.missing(project_id)
                connection.execute(sa.insert(t.datasets).values(**values))
        except IntegrityError:
            raise _taken(name) from None
        return made

    def get(self, dataset_id: str) -> Dataset:
        """One data set.

        Raises:
            NotFound: there is none of that name.
        """
        query = sa.select(t.datasets).where(t.datasets.c.id == dataset_id)
        with self._database.reading() as connection:
            return rows.one(connection, query, Dataset, dataset_id)

    def list(
        self, project_id: str | None = None, limit: int = 50, after: str = "", path: str | None = None
    ) -> list[Dataset]:
        """The oldest first; `after` is the id of the last one of the page before."""
        query = _page(t.datasets, project_id, limit, after)
        if path is not None:
            query = query.where(t.datasets.c.path == path)
        with self._database.reading() as connection:
            return rows.many(connection, query, Dataset)

    def note(self, dataset_id: str, bytes: int, facts: dict[str, Any]) -> Dataset:
        """What it holds now.

        Raises:
            NotFound: there is none of that name.
        """
        where = t.datasets.c.id == dataset_id
        with self._database.writing() as connection:
            connection.execute(sa.update(t.datasets).where(where).values(bytes=bytes, facts=facts))
            return rows.one(connection, sa.select(t.datasets).where(where), Dataset, dataset_id)

    def delete(self, dataset_id: str) -> None:
        """Forget a data set; its files are not touched.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.writing() as connection:
            if connection.execute(sa.delete(t.datasets).where(t.datasets.c.id == dataset_id)).rowcount != 1:
                raise rows.missing(dataset_id)


class Runs:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> Run:
        """One run.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.reading() as connection:
            return rows.one(connection, sa.select(t.runs).where(t.runs.c.id == run_id), Run, run_id)

    def list(self, project_id: str | None = None, limit: int = 50, after: str = "") -> list[Run]:
        """The oldest first; `after` is the id of the last one of the page before."""
        with self._database.reading() as connection:
            return rows.many(connection, _page(t.runs, project_id, limit, after), Run)


class Models:
    """See each function; all raise `StoreAway` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, model_id: str) -> Model:
        """One model.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.reading() as connection:
            return rows.one(connection, sa.select(t.models).where(t.models.c.id == model_id), Model, model_id)

    def list(self, project_id: str | None = None, limit: int = 50, after: str = "") -> list[Model]:
        """The oldest first; `after` is the id of the last one of the page before."""
        with self._database.reading() as connection:
            return rows.many(connection, _page(t.models, project_id, limit, after), Model)


def _query() -> sa.Select[Any]:
    number = (
        sa.select(sa.func.count()).where(t.jobs.c.project_id == t.projects.c.id).correlate(t.projects)
    ).scalar_subquery()
    return sa.select(t.projects, number.label("jobs"))


def _page(table: sa.Table, project_id: str | None, limit: int, after: str) -> sa.Select[Any]:
    query = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(rows.page(limit))
    return query if project_id is None else query.where(table.c.project_id == project_id)


def _taken(name: str) -> Conflict:
    return Conflict(_("The name “{name}” is taken.").format(name=name), _("Choose another name."))
