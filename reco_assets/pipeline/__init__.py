"""What each step does: where `recommender` (arrays) and `store` (SQL), which do not know each other, meet."""
