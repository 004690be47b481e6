"""What Alembic runs for each command: the steps, on the connection that `migrate.py` opened."""

from __future__ import annotations

from alembic import context

from caudal.service.store.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
