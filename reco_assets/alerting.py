"""Alerts: what they say, and how they reach people through Apprise.

Knows neither Dagster nor SQL: `reco_assets.sensors` decides when, `reco_assets.store.alerts`
remembers what went out. Apprise is imported when something is delivered or checked, not before.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from reco_assets.errors import SettingsError

Kind = Literal["run_failure", "blocking_check", "stale", "recovery"]

UNKNOWN_DATABASE_UNREACHABLE: Final = "unknown: database unreachable"
_LONGEST_ERROR = 1500
"""Characters of an error in an alert: Discord and SMS gateways cut at 2,000, and the run has it all."""
_LONGEST_TITLE = 200
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^@\s/]+@")
_BETWEEN_URLS = re.compile(r"\s+|,+\s*(?=[A-Za-z][\w+.-]*://)|,+\s*$")
_SCHEME = re.compile(r"\s*([A-Za-z][\w+.-]*)://")
_CONNECT_TIMEOUT_S = 5.0
_DELIVERY_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Alert:
    """One message for the on-call engineer, complete enough to act on.

    `dedupe_key` names the incident: it is told once per channel. `serving` says what readers get
    meanwhile, `repair` is a command or the next step, `since` is in UTC.
    """

    dedupe_key: str
    kind: Kind
    title: str
    what: str
    since: datetime
    serving: str
    repair: str
    error: str = ""
    run_url: str = ""
    notes: tuple[str, ...] = ()
    incident: str = ""
    """Key shared by an alert and its recovery notice, for pagers that resolve; default: `dedupe_key`."""

    @property
    def subject(self) -> str:
        """The title as it is sent: one line, without passwords, recognisable among other mail."""
        return _trim(" ".join(f"[reco] {hide_passwords(self.title)}".split()), _LONGEST_TITLE)

    @property
    def body(self) -> str:
        """Plain text that reads the same in a chat, a mail and a pager; the essential lines come first.

        >>> alert = Alert("k", "stale", "t", "nothing was published for 31 h", since=datetime(
        ...     2026, 11, 20, 2, 5, tzinfo=UTC), serving="the generation of 2026-11-19", repair="reco run")
        >>> print(alert.body)
        What: nothing was published for 31 h
        Since: 2026-11-20 02:05 UTC
        Still served: the generation of 2026-11-19
        Repair: reco run
        """
        parts = [
            ("What", self.what),
            ("Error", _trim(self.error, _LONGEST_ERROR)),
            ("Since", utc(self.since)),
            ("Still served", self.serving),
            ("Run", self.run_url),
            ("Repair", self.repair),
        ]
        lines = [f"{name}: {text.strip()}" for name, text in parts if text.strip()]
        return hide_passwords("\n".join([*lines, *self.notes]))


@dataclass(frozen=True)
class Channel:
    """Somewhere alerts go. `id` can be stored and shown; `url` holds the secret and is never printed."""

    id: str
    url: str = field(repr=False)


def utc(moment: datetime) -> str:
    """`2026-11-20 02:05 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def age(span: timedelta) -> str:
    """A length of time as people say it.

    >>> age(timedelta(minutes=7)), age(timedelta(hours=31)), age(timedelta(days=4, hours=3))
    ('7 min', '31 h', '4 days')
    """
    minutes = span.total_seconds() / 60
    if minutes < 90:
        return f"{max(0, minutes):.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def hide_passwords(text: str) -> str:
    """Blank out passwords in the URLs of a text: errors quote connection strings.

    >>> hide_passwords("cannot reach postgresql://app:s3cret@db/x")
    'cannot reach postgresql://app:***@db/x'
    """
    return _PASSWORD_IN_URL.sub(r"\1:***@", text)


def check_alert_urls(alert_urls: str) -> None:
    """Refuse RECO_ALERT_URLS at start if alerts could not go out.

    Raises:
        SettingsError: names the scheme of each URL that Apprise does not understand, never the URL.
    """
    _, problems = parse_channels(alert_urls)
    if problems:
        raise SettingsError(" ".join(problems))


def parse_channels(alert_urls: str) -> tuple[list[Channel], list[str]]:
    """The usable channels of RECO_ALERT_URLS, and a sentence for each URL that is not.

    One wrong URL must not silence the others, so whoever delivers uses what is left.
    """
    channels: dict[str, Channel] = {}
    problems = []
    for position, url in enumerate((url for url in _BETWEEN_URLS.split(alert_urls) if url), start=1):
        if _instantiate(url) is None:
            found = _SCHEME.match(url)
            scheme = f"{found[1]}://" if found else "no scheme"
            problems.append(
                f"RECO_ALERT_URLS: Apprise does not understand URL {position} ({scheme}). "
                "docs/alerts.md has one example per service."
            )
            continue
        channel = Channel(_channel_id(url), url)
        channels[channel.id] = channel
    return list(channels.values()), problems


def deliver(channel: Channel, alert: Alert) -> str | None:
    """Send the alert to one channel and wait until it is accepted; why not, or None when it was."""
    import apprise

    service = _instantiate(channel.url)
    if service is None:
        return "Apprise no longer understands this URL"
    _fit(service, channel.url, alert)
    types = {"recovery": apprise.NotifyType.SUCCESS, "stale": apprise.NotifyType.WARNING}
    outbox = apprise.Apprise(asset=_asset())
    outbox.add(service)
    with _apprise_warnings() as warnings:
        accepted = outbox.notify(
            title=alert.subject,
            body=alert.body,
            notify_type=types.get(alert.kind, apprise.NotifyType.FAILURE),
            body_format=apprise.NotifyFormat.TEXT,
            timeout=_DELIVERY_TIMEOUT_S,
        )
    if accepted:
        return None
    return _without_secrets("; ".join(warnings), channel.url) or "the channel did not accept it"


def _fit(service: Any, url: str, alert: Alert) -> None:
    """Defaults that Apprise leaves to the URL and that alerts need; the URL's own choice wins."""
    import apprise

    if "overflow=" not in url:
        # The default sends too long a text as it is, and the service refuses it for ever.
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
    if hasattr(service, "dedup") and hasattr(service, "action"):  # PagerDuty
        # One incident per alert, which the recovery notice resolves instead of paging again.
        service.dedup = (
            service.dedup or hashlib.sha256((alert.incident or alert.dedupe_key).encode()).hexdigest()
        )
        if "action=" not in url:
            service.action = "map"
    service.socket_connect_timeout = min(service.socket_connect_timeout, _CONNECT_TIMEOUT_S)


def _instantiate(url: str) -> Any:
    """The Apprise service of a URL, or None. Apprise logs URLs it cannot read, secrets and all."""
    import apprise

    with _apprise_warnings():
        return apprise.Apprise.instantiate(url, asset=_asset(), suppress_exceptions=True)


def _asset() -> Any:
    import apprise

    return apprise.AppriseAsset(
        app_id="reco-assets",
        app_desc="reco-assets alerts",
        app_url="",
        async_mode=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )


def _channel_id(url: str) -> str:
    """Scheme and 32 bits of a hash: tells channels apart, and gives no guessed secret away."""
    found = _SCHEME.match(url)
    return f"{found[1].lower() if found else 'url'}:{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _without_secrets(text: str, url: str) -> str:
    """Without any part of the URL that is long enough to be a token or an address."""
    for part in sorted(re.split(r"[^\w.-]+", url), key=len, reverse=True):
        if len(part) >= 6:
            text = text.replace(part, "***")
    return hide_passwords(text)


_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
"""The warnings of the delivery that runs in this context; Apprise's worker threads inherit it."""


def _collect(record: logging.LogRecord) -> bool:
    """A filter on Apprise's logger: no handler sees what is collected, whoever installed it."""
    messages = _collected.get()
    if messages is None:
        return True
    if record.levelno >= logging.WARNING:
        messages.append(record.getMessage())
    return False


@contextmanager
def _apprise_warnings() -> Iterator[list[str]]:
    """Collect what Apprise warns of instead of letting it reach a log: it may quote secrets."""
    logging.getLogger("apprise").addFilter(_collect)  # adding it again changes nothing
    messages: list[str] = []
    token = _collected.set(messages)
    try:
        yield messages
    finally:
        _collected.reset(token)


def _trim(text: str, longest: int) -> str:
    text = text.strip()
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
