"""Tabs that close, are put away, share a queue, and users who follow each other: nothing lost or doubled."""

import pytest
from playwright.sync_api import BrowserContext

from reco_assets_tests.browser.conftest import HIDDEN, LEFT, App, Open, Visit, set_offline


def test_what_a_crash_interrupts_is_sent_by_the_next_page_with_the_same_ids(visit: Open, app: App) -> None:
    tab = visit(app.user)
    for post in app.posts[:5]:
        tab.track("like", post)
    ids = [key[-36:] for key in tab.queued()]
    tab.crash()
    later = visit(app.user)
    assert [key[-36:] for key in later.queued()] == ids
    later.let_pass(5)
    later.wait_stored(app, like=5)
    later.wait_called(5)
    assert later.sent_ids == ids


@pytest.mark.parametrize("lacking", ["", "delete Request.prototype.keepalive"], ids=["keepalive", "beacon"])
def test_a_tab_that_closes_mid_batch_sends_it_and_nothing_is_stored_twice(
    visit: Open, app: App, still_context: BrowserContext, lacking: str
) -> None:
    still_context.add_init_script(lacking)
    tab = visit(app.user)
    for post in app.posts[:7]:
        tab.track("share", post)
    tab.close()
    later = visit(app.add_user())
    later.wait_stored(app, share=7)
    again = visit(app.user)
    again.flush()  # the beacon brought no answer, and the page was gone before the other's
    again.wait_sent()
    assert app.kinds() == {"share": 7}


@pytest.mark.parametrize("put_away", [HIDDEN, LEFT], ids=["hidden", "left"])
def test_a_page_that_is_put_away_sends_what_it_has(visit: Open, app: App, put_away: str) -> None:
    tab = visit(app.user)
    tab.track("click", app.posts[0])
    tab.page.evaluate(put_away)
    tab.wait_stored(app, click=1)
    tab.wait_called(1)


def test_two_tabs_do_not_send_the_same_queue(visit: Open, app: App) -> None:
    first = visit(app.user)
    # A tab that the first one opens shares its process, and with it one view of the storage. Tabs in two
    # processes see what the other took off the queue a moment later, and may send that twice.
    with first.page.expect_popup() as opened:
        first.page.evaluate("() => void open(location.href)")
    second = Visit(opened.value)
    second.page.wait_for_function("() => window.page")
    tabs = [first, second]
    for tab in tabs:
        set_offline(tab, True)
    for tab in tabs:
        for post in app.posts[:30]:
            tab.track("click", post)
    set_offline(first, False)
    for tab in tabs:
        tab.wait_stored(app, click=60)
        tab.wait_sent()
    first.until(lambda: sum(first.sizes + second.sizes) >= 60)
    sent = first.sent_ids + second.sent_ids
    assert len(sent) == len(set(sent)) == 60


def test_one_user_never_sends_what_another_did(visit: Open, app: App) -> None:
    other = app.add_user()
    first = visit(app.user)
    first.track("like", app.posts[0])
    first.crash()
    second = visit(other)
    second.track("click", app.posts[1])
    second.let_pass(5)
    second.wait_stored(app, other, click=1)
    second.until(lambda: [key.split(":")[1] for key in second.queued()] == [str(app.user)])
    assert app.kinds() == {}
    third = visit(app.user)
    third.let_pass(5)
    third.wait_stored(app, like=1)
