"""The page of `llmhost page` in a real browser: Debian's Chromium, without a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from llmhost.status.page import page
from tests.unit.page_sample import SCRIPT, overview

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # The sandbox of Chromium refuses root.
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "index.html"
    place.write_text(page(overview()), encoding="utf-8")
    return place


@pytest.fixture
def shown(browser: Browser, file: Path) -> Iterator[Page]:
    """The page in a window, offline."""
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    window = context.new_page()
    window.goto(file.as_uri())
    yield window
    context.close()


def test_nothing_is_loaded_and_nothing_runs(browser: Browser, file: Path) -> None:
    requests: list[Request] = []
    messages: list[ConsoleMessage] = []
    window = browser.new_page()
    # Playwright cannot call a built-in method.
    window.on("request", lambda each: requests.append(each))
    window.on("console", lambda each: messages.append(each))
    window.goto(file.as_uri())
    assert [each.url for each in requests] == [file.as_uri()]
    assert [each.text for each in messages] == []
    assert window.title() == "2 of 3 hosts are broken or unknown · llmhost"
    # What a server says is text.
    assert window.get_by_text(SCRIPT).first.is_visible()
    assert window.locator("script").count() == 0
    window.close()


def test_keyboard_reaches_everything(shown: Page) -> None:
    shown.keyboard.press("Tab")
    focused = shown.locator(":focus")
    assert focused.inner_text() == "Skip to the hosts"
    box = focused.bounding_box()
    assert box and box["x"] >= 0  # it is visible while it has the focus
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "hosts"
    # Every summary can be reached, and opened with the space bar.
    component = shown.locator("details.component").first
    assert component.get_attribute("open") is None
    for _ in range(60):
        shown.keyboard.press("Tab")
        if shown.evaluate("document.activeElement.parentElement.className") == "component":
            break
    outline = shown.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    shown.keyboard.press("Space")
    assert (component.get_attribute("open"), outline) == ("", "solid")


def test_links_lead_to_their_parts(shown: Page) -> None:
    for link in shown.locator("nav a").all():
        link.click()
        target = shown.locator(shown.evaluate("location.hash"))
        assert target.get_attribute("aria-label") == link.inner_text()


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)` by WCAG 2."""
    parts = [int(each) / 255 for each in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(window: Page, selector: str) -> float:
    """Contrast of an element's text with the first background behind it that is not transparent."""
    colors = window.locator(selector).first.evaluate(
        """element => {
            const color = getComputedStyle(element).color;
            while (getComputedStyle(element).backgroundColor === 'rgba(0, 0, 0, 0)')
                element = element.parentElement;
            return [color, getComputedStyle(element).backgroundColor];
        }"""
    )
    light, dark = sorted(map(luminance, colors), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_color_schemes(shown: Page, scheme: str) -> None:
    shown.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    body = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) < 0.1) == (scheme == "dark")
    texts = ("h1", "p.about", "th", "td", "nav a", ".none", ".failure code", ".counts em")
    tinted = (".pill.good", ".pill.warn", ".pill.bad", ".note.warn", ".problem")
    found = {each: contrast(shown, each) for each in (*texts, *tinted)}
    # WCAG 2, level AA.
    assert {each: value for each, value in found.items() if value < 4.5} == {}


def test_page_fits_a_telephone(shown: Page) -> None:
    shown.set_viewport_size({"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
