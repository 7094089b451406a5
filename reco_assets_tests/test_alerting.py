"""Rendering and delivery. The sensors' own tests use real channels as well."""

import json
import logging
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from reco_assets.alerting import Alert, Channel, check_alert_urls, deliver, parse_channels
from reco_assets.errors import SettingsError

ALERT = Alert(
    dedupe_key="run_failure:run:7",
    kind="run_failure",
    title="user_knn_model of 2026-11-20 failed",
    what="user_knn_model of 2026-11-20 (job daily_recommendations)",
    since=datetime(2026, 11, 21, 2, 3, tzinfo=UTC),
    serving="the generation of 2026-11-19",
    repair="reco run --partition 2026-11-20",
    error="NoInteractions: no interactions",
    run_url="http://127.0.0.1:3000/runs/7",
    notes=("A note.",),
)


def test_the_body_holds_every_part_in_order() -> None:
    assert ALERT.body.splitlines() == [
        "What: user_knn_model of 2026-11-20 (job daily_recommendations)",
        "Error: NoInteractions: no interactions",
        "Since: 2026-11-21 02:03 UTC",
        "Still served: the generation of 2026-11-19",
        "Run: http://127.0.0.1:3000/runs/7",
        "Repair: reco run --partition 2026-11-20",
        "A note.",
    ]


def test_a_long_error_is_trimmed_and_the_repair_still_there() -> None:
    alert = Alert("k", "stale", "t\n" * 500, "w", ALERT.since, "s", "reco run", error="x" * 10_000)
    assert len(alert.body) < 2000
    assert alert.body.endswith("Repair: reco run")
    assert "\n" not in alert.subject
    assert len(alert.subject) <= 200


def test_passwords_in_errors_are_blanked() -> None:
    error = "cannot reach postgresql://app:s3cret@db:5432/x"
    alert = Alert("k", "stale", error, error, ALERT.since, error, error, error=error)
    assert "s3cret" not in alert.body + alert.subject


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\n", "  ,  "])
def test_urls_are_separated_by_spaces_or_commas(separator: str) -> None:
    urls = [
        "json://127.0.0.1:8099/hook",
        "mailto://127.0.0.1:25?from=reco@example.org&to=a@example.org,b@example.org&mode=insecure",
        "pagerduty://integration@key",
    ]
    channels, problems = parse_channels(separator.join(urls) + separator)
    assert [channel.url for channel in channels] == urls
    assert problems == []


def test_a_url_named_twice_is_one_channel() -> None:
    channels, _ = parse_channels("json://127.0.0.1/x json://127.0.0.1/x")
    assert len(channels) == 1


def test_no_url_is_no_channel_and_no_problem() -> None:
    assert parse_channels("  ") == ([], [])
    check_alert_urls("")


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("slack://Tsecret99/Bsecret99", "slack://"),
        ("nosuch://user:secret99@host", "nosuch://"),
        ("pagerduty://secret99", "pagerduty://"),
        ("https://example.org/secret99", "https://"),
        ("secret99", "no scheme"),
    ],
)
def test_a_wrong_url_is_refused_by_scheme_without_its_secret(
    url: str, scheme: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SettingsError) as caught:
        check_alert_urls(f"json://127.0.0.1/x {url}")
    assert f"URL 2 ({scheme})" in str(caught.value)
    printed = capfd.readouterr()
    assert "secret99" not in str(caught.value) + caplog.text + printed.out + printed.err


def test_a_channel_shows_its_scheme_and_never_its_secret() -> None:
    (channel, other), _ = parse_channels("json://user:secret99@127.0.0.1/x json://user:other@127.0.0.1/x")
    assert channel.id.startswith("json:")
    assert channel.id != other.id
    assert "secret99" not in repr(channel) + channel.id


def test_why_a_delivery_failed_is_said_without_secrets() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"json://user:secret99@127.0.0.1:{server.server_port}/token99"
        reason = deliver(Channel("json:1", url), ALERT)
    assert reason is not None
    assert "503" in reason
    assert "secret99" not in reason
    assert "token99" not in reason


def test_pagerduty_resolves_the_incident_that_the_alert_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    class Accepted:
        status_code = 202
        content = b"{}"

    def post(_url: str, data: str, **_: object) -> Accepted:
        sent.append(json.loads(data))
        return Accepted()

    monkeypatch.setattr("requests.post", post)  # PagerDuty has one address, and it is not ours
    channel = Channel("pagerduty:1", "pagerduty://integration@key")
    recovery = Alert(
        "recovery:k", "recovery", "Recovered", "w", ALERT.since, "s", "r", incident=ALERT.dedupe_key
    )
    assert deliver(channel, ALERT) is None
    assert deliver(channel, recovery) is None
    assert [message["event_action"] for message in sent] == ["trigger", "resolve"]
    assert sent[0]["dedup_key"] == sent[1]["dedup_key"]
    assert len(sent[0]["payload"]["summary"]) <= 1024
    assert sent[0]["payload"]["severity"] == "critical"
