"""Alembic runs this; the connection is handed over by `database.migrate`."""

from alembic import context

from inferd.storage import (
    installation,
    tables_access,
    tables_budgets,
    tables_limits,
    tables_operation,
    tables_usage,
    tables_webhooks,
)
from inferd.storage.tables import metadata

AREAS = (
    installation,
    tables_access,
    tables_budgets,
    tables_limits,
    tables_operation,
    tables_usage,
    tables_webhooks,
)
"""Imported, so that `metadata` knows their tables."""

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
