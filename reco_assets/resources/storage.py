"""Where each asset keeps its files: `<base>/<asset>/<partition date>…`."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg

from reco_assets.errors import (
    CorruptArtifact,
    MissingUpstream,
    SettingsError,
    StorageFull,
    StorageUnwritable,
)
from reco_assets.names import (
    INTERACTION_MATRIX,
    RAW_INTERACTIONS,
    USER_KNN_MODEL,
    USER_RECOMMENDATIONS,
    evaluation_file,
    log_directory,
    matrix_directory,
    matrix_settings_file,
    model_directory,
)


class FileStorage(dg.ConfigurableResource):
    """Paths of the pipeline's files on a file system that all runs share."""

    base_dir: str

    @property
    def raw_interactions(self) -> Path:
        """Directory of one Parquet file per day."""
        return Path(self.base_dir) / RAW_INTERACTIONS

    def raw_day(self, day: date) -> Path:
        """The day's interactions, Parquet."""
        return self.raw_interactions / f"{day}.parquet"

    def log(self, day: date) -> Path:
        """The window's interactions in integer codes, a directory of arrays."""
        return log_directory(Path(self.base_dir), day)

    def matrix(self, day: date) -> Path:
        """The weighted interaction matrix, a directory of arrays."""
        return matrix_directory(Path(self.base_dir), day)

    def matrix_settings(self, day: date) -> Path:
        """The settings that the matrix was built with, JSON."""
        return matrix_settings_file(Path(self.base_dir), day)

    def model(self, day: date) -> Path:
        """The fitted model, a directory of arrays."""
        return model_directory(Path(self.base_dir), day)

    def evaluation(self, day: date) -> Path:
        """The hold-out report and its verdict, JSON."""
        return evaluation_file(Path(self.base_dir), day)

    def recommendations(self, day: date) -> Path:
        """Every list that was computed for the day, published or not, Parquet."""
        return Path(self.base_dir) / USER_RECOMMENDATIONS / f"{day}.parquet"

    def window(self, last: date, days: int, first: date) -> list[date]:
        """The days whose files a window reads: `days` ending with `last`, none before `first`.

        Raises:
            MissingUpstream: Some were never extracted. An extracted day without interactions has a file.
        """
        start = max(first, last - timedelta(days=days - 1))
        wanted = [start + timedelta(days=n) for n in range((last - start).days + 1)]
        missing = [day for day in wanted if not self.raw_day(day).exists()]
        if missing:
            raise MissingUpstream(
                f"{len(missing)} of the {len(wanted)} days in the window {start} … {last} were not extracted "
                f"(first {missing[0]}, last {missing[-1]}). Extract them in one run: "
                f"`reco run --assets raw_interactions --from {missing[0]} --to {missing[-1]}`."
            )
        return wanted

    def check_database(self, identity: str) -> None:
        """Files of one database must not be mixed with rows of another.

        Raises:
            SettingsError: The files below `base_dir` came from another database.
        """
        path = Path(self.base_dir) / "database.json"
        if not path.exists():
            write_json(path, {"identity": identity})
        elif read_json(path, "reco run").get("identity") != identity:
            raise SettingsError(
                f"The files below {self.base_dir} were extracted from another database, or before its tables "
                "were made anew. Set RECO_STORAGE_DIR to another directory, or move that one away, and run "
                "again."
            )

    def remove_archives(self, now: datetime, keep_days: int, say: Callable[[str], None]) -> list[str]:
        """Delete matrices, models and archived lists that were written more than `keep_days` ago.

        Judged by when they were written, not by their day: a backfill of old days is fresh.
        """
        oldest = (now - timedelta(days=keep_days)).timestamp()
        removed = []
        for asset in (INTERACTION_MATRIX, USER_KNN_MODEL, USER_RECOMMENDATIONS):
            with self.writing(asset, say):
                for path in sorted((Path(self.base_dir) / asset).glob("[0-9]*")):
                    if path.stat().st_mtime < oldest:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                        removed.append(f"{asset}/{path.name}")
        return removed

    @contextmanager
    def writing(self, asset: str, say: Callable[[str], None]) -> Iterator[None]:
        """Held while an asset writes its files: a second run of the same asset says so and waits its turn.

        The operating system lets go of the lock when the process ends, however it ends.
        """
        lock = Path(self.base_dir) / "locks" / f"{asset}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise StorageUnwritable(
                f"Cannot write below {self.base_dir}: {error.strerror}. Set RECO_STORAGE_DIR to a directory "
                "that this user can write to and that has space left."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"Another run is writing {asset}; waiting for it to end.")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name, sync and rename it: a reader sees the old one or the new one.

    Raises:
        StorageFull, StorageUnwritable: The write was refused; the previous file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise (StorageFull if full else StorageUnwritable)(
            f"Cannot write {path}: {error.strerror or error}. "
            f"{'Free space there' if full else 'Make it writable'} and run the same command again; the "
            "previous version is untouched."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Same content, same bytes; see `replacing`."""
    with replacing(path) as file:
        file.write(json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode())


def read_json(path: Path, redo: str) -> Any:
    """What `write_json` wrote.

    Raises:
        MissingUpstream: There is no such file.
        CorruptArtifact: It is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingUpstream(f"No {path}. Make it with `{redo}`.") from None
    except ValueError as error:
        raise CorruptArtifact(f"{path} is not readable ({error}). Make it again with `{redo}`.") from error
