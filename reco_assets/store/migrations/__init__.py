"""Alembic scripts. `reco_assets.store.migrate` runs them; they are not meant for the alembic command."""
