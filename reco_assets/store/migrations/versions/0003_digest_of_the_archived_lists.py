"""Which file holds a generation's lists, to the byte, and which generation was put live again from it."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE recommendation_generations ADD COLUMN IF NOT EXISTS lists_digest text")
    op.execute("ALTER TABLE recommendation_generations ADD COLUMN IF NOT EXISTS restored_from uuid")


def downgrade() -> None:
    op.execute("ALTER TABLE IF EXISTS recommendation_generations DROP COLUMN IF EXISTS restored_from")
    op.execute("ALTER TABLE IF EXISTS recommendation_generations DROP COLUMN IF EXISTS lists_digest")
