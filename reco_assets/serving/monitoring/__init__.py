"""What the service says of itself: logs, counts, gauges."""
