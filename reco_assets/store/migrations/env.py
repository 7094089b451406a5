"""Runs the revisions on the connection, and inside the transaction, that `migrate.py` hands over."""

from alembic import context

from reco_assets.store.migrate import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the caller owns the transaction
)
context.run_migrations()
