"""What the service answers: a module for each group of paths."""
