"""Services that ask who calls, and pages of another origin."""

import jwt
import pytest
from playwright.sync_api import BrowserContext

from reco_assets_tests.browser.conftest import App, add_pages, open_posts
from reco_assets_tests.serving.conftest import Serve


@pytest.mark.parametrize("later", [{}, {"later": "1"}], ids=["token", "promise"])
def test_a_token_names_the_user(
    still_context: BrowserContext, serve: Serve, app: App, later: dict[str, str]
) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    token = jwt.encode({"sub": str(app.user), "exp": 4_000_000_000}, key)
    tab = open_posts(still_context, service.url, None, token=token, **later)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.track("click", app.posts[0])
    tab.close()  # the header goes along
    after = open_posts(still_context, service.url, None, token=token, **later)
    after.wait_stored(app, like=1, click=1)


def test_events_wait_for_a_valid_token(still_context: BrowserContext, serve: Serve, app: App) -> None:
    key = "k" * 32
    service = serve(auth="jwt", jwt_keys=key)
    add_pages(service.app)
    expired = jwt.encode({"sub": str(app.user), "exp": 1_000_000_000}, key)
    tab = open_posts(still_context, service.url, app.user, token=expired)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.until(lambda: len(tab.calls) == len(tab.queued()) == 1)
    tab.close()
    valid = jwt.encode({"sub": str(app.user), "exp": 4_000_000_000}, key)
    later = open_posts(still_context, service.url, app.user, token=valid)
    later.let_pass(5)
    later.wait_stored(app, like=1)


def test_a_page_of_another_origin_can_use_the_service(
    still_context: BrowserContext, serve: Serve, app: App
) -> None:
    elsewhere = serve()
    add_pages(elsewhere.app)
    service = serve(cors_origins=elsewhere.url)
    tab = open_posts(still_context, elsewhere.url, app.user, endpoint=service.url)
    tab.track("like", app.posts[0])
    tab.flush()
    tab.wait_stored(app, like=1)
    tab.track("click", app.posts[0])
    tab.close()
    after = open_posts(still_context, elsewhere.url, app.user, endpoint=service.url)
    after.wait_stored(app, like=1, click=1)
