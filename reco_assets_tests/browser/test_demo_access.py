"""The demo page by keyboard, by ear and in large type."""

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from reco_assets_tests.browser.conftest import App
from reco_assets_tests.serving.conftest import RunningService

_BELOW_HEADER = """() => {
  const top = document.querySelector('#top');
  const focused = document.activeElement;
  if (focused === document.body || top.contains(focused) || focused.className === 'skip') return true;
  return focused.getBoundingClientRect().top >= top.getBoundingClientRect().bottom;
}"""
_OUTSIDE = """() => [...document.querySelectorAll('main *')]
  .filter(element => element.checkVisibility() && element.getBoundingClientRect().right > innerWidth - 8)
  .map(element => element.className || element.tagName)"""


@pytest.fixture
def page(context: BrowserContext, app: App, service: RunningService) -> Page:
    """The demo page of the app's user, with posts."""
    page = context.new_page()
    page.goto(f"{service.url}/demo?user={app.user}")
    page.wait_for_selector(".post")
    return page


def test_nothing_chosen_by_keyboard_hides_below_the_header(page: Page) -> None:
    for key, times in (("Tab", 45), ("Shift+Tab", 40)):
        for _ in range(times):
            page.keyboard.press(key)
            page.wait_for_function(_BELOW_HEADER)  # the page scrolls to it a moment later


def test_each_button_says_of_which_post_it_is(page: Page) -> None:
    told = page.evaluate(
        "() => [...document.querySelectorAll('.actions button')].map(button => [button.innerText,"
        " document.getElementById(button.getAttribute('aria-describedby')).textContent,"
        " button.closest('.post').querySelector('h2').textContent])"
    )
    assert len(told) >= 30
    assert all(of == title for _, of, title in told)
    first = page.get_by_role("article", name=told[0][2], exact=True)
    assert first.get_by_role("button", name="Like").count() == 1


def test_large_type_fits_a_narrow_screen(browser: Browser, app: App, service: RunningService) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800}, reduced_motion="reduce")
    page.goto(f"{service.url}/demo?user={app.user}")
    page.wait_for_selector(".post")
    page.evaluate("() => { document.documentElement.style.fontSize = '32px' }")
    assert page.evaluate(_OUTSIDE) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.close()
