"""Recommendations from live votes: the day's model, the events since, and who is told of changes."""
