"""`python -m reco_assets` is `reco`."""

from reco_assets.cli import main

main()
