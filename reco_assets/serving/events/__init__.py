"""Events on their way in: read and bounded, then committed in groups."""
