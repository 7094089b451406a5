"""The demo page: what it shows, and how it behaves. The posts are there before the service starts."""

import pytest
from playwright.sync_api import Browser, BrowserContext

from reco_assets.settings import Settings
from reco_assets_tests.browser.conftest import App, Visit, make_app
from reco_assets_tests.serving.conftest import RunningService, Serve

_CONTRAST = """() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = color => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data] };
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => { for (let at = element; at; at = at.parentElement) {
    const color = rgb(getComputedStyle(at).backgroundColor); if (color[3] === 255) return color }
    return rgb('white') };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const words = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!words || !element.checkVisibility()) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${element.className || element.tagName}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


def _demo(context: BrowserContext, service: RunningService, user: object) -> Visit:
    tab = Visit(context.new_page())
    tab.page.goto(f"{service.url}/demo?user={user}")
    tab.page.wait_for_selector(".post")
    return tab


def test_it_says_where_the_posts_come_from_and_why(context: BrowserContext, serve: Serve, app: App) -> None:
    service = serve(experiment="layout:random=100", realtime=False)
    tab = _demo(context, service, app.user)
    facts = tab.page.inner_text("#facts")
    assert "Experiment\nlayout, arm random" in facts
    assert "Random 20" in facts
    post = tab.page.locator(".post").first
    assert post.locator(".title").inner_text().startswith("Post ")
    assert post.locator(".source").inner_text() == "Random"
    assert post.locator(".reason").inner_text() == "Picked at random"
    assert post.locator(".rank").inner_text() == "1"
    assert tab.problems == []


def test_a_fallback_is_shown_with_its_reason(
    context: BrowserContext, app: App, service: RunningService
) -> None:
    tab = _demo(context, service, app.user)
    assert "Fallback because" in tab.page.inner_text("#facts")


def test_scrolling_to_the_end_shows_every_post_once(
    context: BrowserContext, serve: Serve, settings: Settings
) -> None:
    app = make_app(settings, n_posts=55)
    tab = _demo(context, serve(), app.user)
    while tab.page.text_content("#end-text") != "That is all for now.":
        tab.page.mouse.wheel(0, 3000)
        tab.page.wait_for_timeout(50)
    shown = tab.page.eval_on_selector_all(".post", "posts => posts.map(post => post.dataset.post)")
    # The random sample is drawn by ranges of ids: of so few posts it misses some.
    assert len(shown) > 40
    assert len(set(shown)) == len(shown)
    assert set(shown) <= set(map(str, app.posts))
    ranks = tab.page.eval_on_selector_all(".rank", "ranks => ranks.map(rank => Number(rank.textContent))")
    assert ranks == list(range(1, len(shown) + 1))


def test_who_reads_is_chosen_and_stays_chosen(
    context: BrowserContext, app: App, service: RunningService
) -> None:
    other = app.add_user()
    service.client.post(
        "/api/track",
        json={"user_id": str(other), "post_id": str(app.posts[0]), "interaction_type": "click"},
    )
    tab = _demo(context, service, app.user)
    tab.page.select_option("#user", str(other))
    tab.page.wait_for_url(f"**/demo?user={other}")
    tab.page.click(".like >> nth=0")
    tab.until(lambda: app.kinds(other).get("like") == 1)
    assert app.kinds() == {}
    tab.page.reload()
    tab.page.wait_for_selector(".post")
    assert tab.page.input_value("#user") == str(other)


def test_a_like_counts_once_and_says_so(context: BrowserContext, app: App, service: RunningService) -> None:
    tab = _demo(context, service, app.user)
    button = tab.page.locator(".like").first
    button.click()
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert button.inner_text() == "Liked"
    tab.until(lambda: app.kinds().get("like") == 1)
    tab.page.reload()
    tab.page.wait_for_selector(".post")
    assert app.kinds()["like"] == 1
    like = next(metadata for kind, _, metadata in app.stored() if kind == "like")
    assert {"source", "rank", "request_id", "propensity"} <= set(like)


def test_what_was_pressed_shows_its_colour_at_once(
    context: BrowserContext, app: App, service: RunningService
) -> None:
    tab = _demo(context, service, app.user)
    colours = "button => [button, document.body].map(element => getComputedStyle(element).color)"
    button = tab.page.locator(".like").first
    button.hover()
    pointed, ink = button.evaluate(colours)
    assert pointed == ink
    button.click()
    pressed, ink = button.evaluate(colours)  # the pointer is still there
    assert pressed != ink


def test_without_a_network_it_says_so_and_tries_again(
    context: BrowserContext, app: App, service: RunningService
) -> None:
    other = app.add_user()
    tab = _demo(context, service, app.user)
    tab.page.evaluate("id => document.querySelector('#user').append(new Option('other', id))", str(other))
    context.set_offline(True)
    tab.page.select_option("#user", str(other))
    tab.page.wait_for_selector("#note:not([hidden])")
    assert tab.page.inner_text("#note") == "You seem to be offline."
    assert tab.page.inner_text("#facts") == ""
    assert tab.page.locator(".post").count() == 0
    context.set_offline(False)
    tab.page.get_by_role("button", name="Try again").click()
    tab.page.wait_for_selector(".post")
    assert tab.page.locator(".fold").count() == 0
    assert not tab.page.is_visible("#note")
    assert tab.page.inner_text("#facts") != ""


def test_a_first_feed_without_recommendations_in_time_is_asked_for_once_more(
    context: BrowserContext, serve: Serve, settings: Settings, app: App
) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url) if "/api/feeds?" in request.url else None)
    tab = _demo(context, serve(feed_recommendations_ms=0.001), app.user)
    assert "recommendations late" in tab.page.inner_text("#facts")
    assert len([url for url in asked if "cursor" not in url]) == 2
    assert len(set(tab.page.locator(".rank").all_inner_texts())) == tab.page.locator(".rank").count()


def test_an_address_that_names_no_user_is_refused_in_words(
    context: BrowserContext, app: App, service: RunningService
) -> None:
    tab = Visit(context.new_page())
    tab.page.goto(f"{service.url}/demo?user=abc")
    tab.page.wait_for_selector("#note:not([hidden])")
    assert "“abc”, which is no UUID" in tab.page.inner_text("#note")
    assert tab.page.input_value("#user") in tab.page.url
    assert tab.problems == []


def test_users_of_one_name_are_told_apart(context: BrowserContext, app: App, service: RunningService) -> None:
    tab = _demo(context, service, app.user)
    names = tab.page.evaluate(
        """async () => {
          const { nameOf, namesOf } = await import("/demo/names.js");
          const hex = n => n.toString(16).padStart(4, "0");
          const ids = Array.from({length: 3000}, (_, n) => `${hex(n)}0000-0000-4000-8000-000000000000`);
          const twin = ids.findIndex((id, at) => at && nameOf(id) === nameOf(ids[0]));
          const other = ids.find(id => nameOf(id) !== nameOf(ids[0]));
          return [hex(twin), nameOf(ids[0]), nameOf(other), namesOf([ids[0], other, ids[twin]])];
        }"""
    )
    twin, shared, other, shown = names
    assert shown == [f"{shared} 0000", other, f"{shared} {twin}"]


def test_on_a_phone_a_name_stands_alone(browser: Browser, app: App, service: RunningService) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700})
    tab = _demo(context, service, app.user)
    option = tab.page.locator("#user option:checked")
    assert "," not in str(option.text_content())
    tab.page.set_viewport_size({"width": 1000, "height": 700})
    tab.until(lambda: "," in str(option.text_content()))
    context.close()


def test_the_explanation_opens_and_closes_by_keyboard(
    context: BrowserContext, app: App, service: RunningService
) -> None:
    tab = _demo(context, service, app.user)
    tab.page.locator(".ask").nth(1).focus()
    tab.page.keyboard.press("Enter")
    panel = tab.page.get_by_role("dialog", name=tab.page.locator(".title").nth(1).inner_text())
    assert "Picked at random" in panel.inner_text()
    tab.page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert tab.page.evaluate("document.activeElement === document.querySelectorAll('.ask')[1]")


def test_it_says_in_words_what_is_left_to_chance(context: BrowserContext, app: App, serve: Serve) -> None:
    tab = _demo(context, serve(feed_length=10, exploration_share=0.4), app.user)
    for post in tab.page.locator(".post").all()[:5]:
        post.locator(".ask").click()
        explored = post.locator(".source").inner_text() == "Exploration"
        words = "drawn, to try out a post" if explored else "40 of 100 places try out other posts"
        assert words in tab.page.inner_text("#why-body")
        tab.page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 360])
def test_it_can_be_read_at_any_width_in_light_and_dark(
    browser: Browser, app: App, service: RunningService, scheme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 700},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    tab = _demo(context, service, app.user)
    tab.page.click(".like >> nth=0")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    assert tab.page.evaluate(_CONTRAST) == []
    tab.page.click(".ask >> nth=0")
    assert tab.page.evaluate(_CONTRAST) == []
    assert tab.problems == []
    context.close()


def test_everything_to_press_has_a_name(context: BrowserContext, app: App, service: RunningService) -> None:
    tab = _demo(context, service, app.user)
    for role in ("button", "combobox", "list", "dialog"):
        for element in tab.page.get_by_role(role, include_hidden=False).all():  # type: ignore[arg-type]
            name = element.inner_text() or element.get_attribute("aria-label")
            assert name, element
    assert tab.page.get_by_label("Reading as").count() == 1
    assert tab.page.get_by_role("heading", level=1).count() == 1
