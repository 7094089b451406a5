"""What every request meets before its route: limits, identity, errors in one shape."""
