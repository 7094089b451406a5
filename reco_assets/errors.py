"""Every error this package raises on purpose.

Each message says what went wrong, the value seen, the limit, and the next step, because it is read
by whoever has to act on it. `transient` tells a caller whether trying again can help: Dagster
retries a step on transient errors only, and the service answers 503 instead of 500.
"""


class RecoError(Exception):
    """Base of all expected failures."""

    transient = False


class SettingsError(RecoError):
    """A setting is unknown, malformed or out of range. Raised at start, before anything is touched."""


class DatabaseUnreachable(RecoError):
    """PostgreSQL refused or lost the connection, and retrying within the budget did not help."""

    transient = True


class DatabaseBusy(RecoError):
    """A statement or lock time-out was hit, or a deadlock was broken at our expense."""

    transient = True


class SchemaError(RecoError):
    """The database lacks a table, a column or a migration, or holds one of an unusable type."""


class NoInteractions(RecoError):
    """A partition or a window holds too few interactions to fit a model on."""


class MissingUpstream(RecoError):
    """A file that an earlier step should have written is not there."""


class CorruptArtifact(RecoError):
    """A stored file exists but cannot be read, or is not what its name says."""


class StorageFull(RecoError):
    """The file system ran out of space; the previous file is untouched."""


class StorageUnwritable(RecoError):
    """The file system refused the write for a reason other than space.

    Permissions, read-only, not a directory; the previous file is untouched.
    """


class BadInput(RecoError):
    """Rows or arguments that cannot be taken; the message counts and locates them."""


class PublicationInProgress(RecoError):
    """Another process holds the publication lock."""

    transient = True


class PublicationRefused(RecoError):
    """A blocking check failed: the generation was not published and the last good one stays."""


class TrackingUnavailable(RecoError):
    """MLflow could not be reached or refused what was to be logged."""

    transient = True


class ModelNotFound(RecoError):
    """No fitted model under that partition, version or alias."""


class FitCancelled(RecoError):
    """A fit or a recommendation pass was told to stop before it was done."""
