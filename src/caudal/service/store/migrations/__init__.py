"""Steps between versions of the tables, for Alembic; run by `store/migrate.py`."""
