"""Everything that speaks SQL: schema, migrations, extract, publish, retention, lookups.

Functions take a connection and never commit; the edge does. The exceptions own a sequence of
transactions by nature and say so: migrations, publishing, extracting, bounded deletes.
"""
