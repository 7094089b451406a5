"""Benchmarks that anybody can repeat: `make bench`, or `python -m benchmarks --help`. See README.md."""
