"""Daily, checked, replayable feed recommendations for an app on PostgreSQL."""

__version__ = "0.1.0"
