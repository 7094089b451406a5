"""Thin Dagster adapters. What they adapt lives in `store`, `recommender` and `local`."""
