"""Publishes pairs (1, 2) and stops at a stage until it is killed; run as a program by the crash tests."""

import sys
import time

from reco_assets.store.database import create_engine_for
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import publish_pairs


def main(url: str, stage_to_stop_at: str) -> None:
    def stop(stage: str) -> None:
        if stage == stage_to_stop_at:
            print("stopped", flush=True)
            time.sleep(60)

    publish_pairs(create_engine_for(settings_for(url)), [(1, 2)], on_stage=stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
