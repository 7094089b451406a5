"""A real Chromium, the real service and a real database."""

import json
import re
import shutil
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request, sync_playwright
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import RunningService, serve, service, settings, template

__all__ = ["serve", "service", "settings", "template"]  # fixtures, found here by every test

PAGES = Path(__file__).parent / "pages"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
SOON_S = 30.0
"""Far above what anything here takes: a slow machine must not fail the suite."""
OFF_SCREEN = "() => scrollTo(0, document.body.scrollHeight)"
HIDDEN = """() => {
  Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
"""Headless Chromium shows every tab: what a phone's browser does when the user turns away."""
LEFT = "() => void dispatchEvent(new Event('pagehide'))"
_CUT_OFF = """() => {
  fetch = () => Promise.reject(new TypeError('cut off'));
  navigator.sendBeacon = () => false;
}"""
# An observer hears of what is visible when it begins; those that are older have heard by the second one.
_SETTLE = """async () => {
  for (let n = 0; n < 2; n++)
    await new Promise(heard => {
      const observer = new IntersectionObserver(() => { observer.disconnect(); heard() });
      observer.observe(document.documentElement);
    });
}"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    # By module: while it runs, its event loop occupies the thread, and asyncio.run() of other tests fails.
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on this machine; scripts/ensure-chromium.sh installs it")
    browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of its own."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(SOON_S * 1000)
    yield context
    context.close()


@pytest.fixture
def still_context(context: BrowserContext) -> BrowserContext:
    """In its pages no time passes, and no timer ends, but by `Visit.let_pass`, however slow the machine."""
    now = datetime.now(UTC)
    context.clock.install(time=now)
    context.clock.pause_at(now)
    return context


def _import_map_source() -> str:
    """An import map has to be inline: the policy names it by its hash."""
    found = re.search(r'type="importmap">(.*?)</script>', (PAGES / "react.html").read_text())
    assert found
    return f"'sha256-{b64encode(sha256(found[1].encode()).digest()).decode()}'"


_IMPORT_MAP = _import_map_source()


class _StrictPages(StaticFiles):
    """The test's own pages, under a policy that allows no inline script and no eval."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; script-src 'self' {_IMPORT_MAP}; connect-src 'self' http: ws:"
        )
        return response


def add_pages(app: FastAPI) -> None:
    """Serve the test's pages at /pages, from the service's own origin."""
    app.mount("/pages", _StrictPages(directory=PAGES))
    # React itself: Dagster's webserver brings it.
    webserver = find_spec("dagster_webserver")
    assert webserver is not None
    assert webserver.origin is not None
    app.mount("/react", StaticFiles(directory=Path(webserver.origin).parent / "graphiql"))


@dataclass
class Visit:
    """A tab in which a user reads posts; every tracking request it makes is noted."""

    page: Page
    calls: list[list[dict[str, Any]]] = field(default_factory=list)
    called_at: list[float] = field(default_factory=list)
    passed_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _note(self, request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/api/track"):
            self.called_at.append(self.passed_s)
            text = request.post_data or ""
            try:
                self.calls.append(json.loads(text)["interactions"])
            except ValueError:  # a test breaks a body on purpose
                self.calls.append([])

    @property
    def sent_ids(self) -> list[str]:
        return [event["id"] for call in self.calls for event in call]

    @property
    def sizes(self) -> list[int]:
        """How many events each call had."""
        return [len(call) for call in self.calls]

    def show(self, posts: list[UUID], class_name: str = "") -> None:
        self.page.evaluate("([ids, kind]) => page.show(ids, kind)", [[str(p) for p in posts], class_name])

    def track(self, kind: str, post: UUID) -> None:
        self.page.evaluate("([kind, id]) => page.reco.track(kind, id)", [kind, str(post)])

    def flush(self) -> None:
        self.page.evaluate("() => page.reco.flush()")

    def let_pass(self, seconds: float) -> None:
        """Let that much time pass in the pages of a still context."""
        self.page.clock.run_for(round(1000 * seconds))
        self.passed_s += seconds

    def settle(self) -> None:
        """Until the page knows what is visible now."""
        self.page.evaluate(_SETTLE)

    def scroll_away(self) -> None:
        self.page.evaluate(OFF_SCREEN)
        self.settle()

    def close(self) -> None:
        """Close the tab. Chromium may end a slow page before it heard of that: it is told first."""
        self.page.evaluate(LEFT)
        self.page.close()

    def crash(self) -> None:
        """Close the tab, and nothing more is sent: one that just closes may send even what it did offline."""
        self.page.evaluate(_CUT_OFF)
        self.page.close()

    def wait_stored(self, app: "App", user: UUID | None = None, /, **kinds: int) -> None:
        """Until so many events of each type are stored for the user, and no others."""
        self.until(lambda: app.kinds(user) == kinds, lambda: f"{app.kinds(user)} instead of {kinds}")

    def wait_called(self, *sizes: int) -> None:
        """Until calls of so many events each were made, and no others: they are noted a moment later."""
        self.until(lambda: self.sizes == list(sizes), lambda: f"{self.sizes} instead of {sizes}")

    def until(
        self,
        true: Callable[[], bool],
        otherwise: Callable[[], str] = lambda: "in vain",
        *,
        passing_s: float = 0,
    ) -> None:
        """Until it is true, letting time pass if asked to; what the page does meanwhile is noted."""
        deadline = time.monotonic() + SOON_S
        self.page.wait_for_timeout(20)  # requests are noted while the page is waited for
        while not true():
            assert time.monotonic() < deadline, otherwise()
            if passing_s:
                self.let_pass(passing_s)
            self.page.wait_for_timeout(20)

    def queued(self) -> list[str]:
        keys: list[str] = self.page.evaluate("() => page.queued()")
        return keys

    def wait_sent(self) -> None:
        """Until nothing is queued: the database knows of events before their page has its answer."""
        self.until(lambda: self.queued() == [], lambda: f"still queued: {self.queued()}")

    def viewed(self) -> list[UUID]:
        """The posts whose views are queued, in their order."""
        texts = self.page.evaluate("() => page.queued().map(key => localStorage[key])")
        events = [json.loads(text) for text in texts]
        return [UUID(event["post_id"]) for event in events if event["interaction_type"] == "view"]


Open = Callable[..., Visit]


def open_posts(
    context: BrowserContext, base: str, user: UUID | None, /, name: str = "posts", **query: str
) -> Visit:
    """Open one of the test's pages that the service at `base` serves."""
    visit = Visit(context.new_page())
    pairs = {"user": str(user), **query} if user else query
    words = "&".join(f"{name}={quote(value)}" for name, value in pairs.items())
    visit.page.goto(f"{base}/pages/{name}.html?{words}")
    visit.page.wait_for_function("() => window.page")
    return visit


@pytest.fixture
def visit(still_context: BrowserContext, service: RunningService) -> Open:
    """Open the page of posts, in which no time passes by itself: `visit(user)`."""
    add_pages(service.app)
    return partial(open_posts, still_context, service.url)


def set_offline(tab: Visit, offline: bool) -> None:
    """Cut the network of the tab's context or bring it back, and wait until the tab knows."""
    tab.page.context.set_offline(offline)
    tab.page.wait_for_function(f"() => navigator.onLine === {str(not offline).lower()}")


@dataclass
class App:
    """The app's users and posts, and what is stored about them."""

    url: str
    user: UUID
    posts: list[UUID]

    def stored(self, user: UUID | None = None) -> list[tuple[str, UUID, dict[str, Any]]]:
        """(type, post, metadata) of the user's events, oldest first."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(
                "SELECT interaction_type, post_id, metadata FROM user_interactions WHERE user_id = %s "
                "ORDER BY metadata ->> 'client_time', id",
                (user or self.user,),
            ).fetchall()

    def kinds(self, user: UUID | None = None) -> dict[str, int]:
        """How many events of each type."""
        counts: dict[str, int] = {}
        for kind, _, _ in self.stored(user):
            counts[kind] = counts.get(kind, 0) + 1
        return counts

    def add_user(self) -> UUID:
        user = uuid4()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("INSERT INTO users (id) VALUES (%s)", (user,))
        return user


def make_app(settings: Settings, n_posts: int = 30) -> App:
    """An author with posts, and a user who has seen nothing yet."""
    url = settings.database_url
    assert url
    author, user, posts = uuid4(), uuid4(), [uuid4() for _ in range(n_posts)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id) VALUES (%s), (%s)", (author, user))
        connection.cursor().executemany(
            "INSERT INTO posts (id, author_id, title) VALUES (%s, %s, %s)",
            [(post, author, f"Post {number}") for number, post in enumerate(posts, start=1)],
        )
    return App(url, user, posts)


@pytest.fixture
def app(settings: Settings) -> App:
    """In the test's own database."""
    return make_app(settings)
