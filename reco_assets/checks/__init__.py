"""What must hold about each asset, each check named as the statement it checks.

Blocking ones stop the steps behind them. Those on the lists are part of `user_recommendations`
itself, so that nothing can publish around them; see `assets/user_recommendations.py`.
"""
