"""Alembic runs this; the connection is handed over by `database.migrate`."""

from alembic import context

import inferd.storage.tables_access
import inferd.storage.tables_budgets
import inferd.storage.tables_limits
import inferd.storage.tables_operation
import inferd.storage.tables_usage  # noqa: F401
from inferd.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
