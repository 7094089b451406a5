"""The service: events in, feeds out. It reads the tables that the pipeline publishes and never calls it."""
