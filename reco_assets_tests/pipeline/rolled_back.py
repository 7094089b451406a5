"""Rolls back and stops at a stage until it is killed; run as a program by the test that kills it."""

import sys
import time
from datetime import UTC, date, datetime

from reco_assets.pipeline.rollback import roll_back
from reco_assets.resources.storage import FileStorage
from reco_assets.store.database import create_engine_for
from reco_assets_tests.store.conftest import settings_for


def main(url: str, storage: str, day: str, stage_to_stop_at: str) -> None:
    def stop(stage: str) -> None:
        if stage == stage_to_stop_at:
            print("stopped", flush=True)
            time.sleep(60)

    roll_back(
        create_engine_for(settings_for(url)),
        FileStorage(base_dir=storage),
        date.fromisoformat(day),
        ttl_hours=72,
        now=datetime.now(UTC),
        say=print,
        on_stage=stop,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
