"""The search API's page in Debian's Chromium, through the real gateway: queries of a person with a
keyboard, and nothing that leaves the page, a key or a query in a URL or a log.

The embedding model is a double; the search API, Qdrant's core and nginx are real.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from llmhost.gateway.keys import digest, new_key
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway
from tests.unit.test_search_api import Site, embeddings_of
from tests.unit.test_search_reliability import program, qdrant

pytestmark = pytest.mark.browser
KEY, LIMITED = new_key(), new_key()
CHROMIUM = "/usr/bin/chromium"
HOSTILE = '<img src=x onerror="document.title=1"><b>shown</b> as text'
LONG = " ".join(f"Sentence {n} of a long report on tape libraries." for n in range(60))
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "cat", "text": "The cat 😺 sleeps on a warm sofa", "metadata": {"lang": "en"}},
    {"id": "gpu", "text": "Das NVLink der GPU ist schnell", "metadata": {"lang": "de"}},
    {"id": "hostile", "text": HOSTILE},
    {"id": "long", "text": f"{LONG} The robot arm is made of carbon."},
    *({"id": f"copy-{n}", "text": f"minutes of the meeting {'a b c d ' * 9}, copy {n}"}
      for n in range(15)),
]  # fmt: skip


@dataclass
class Served:
    """The page, and what its gateway logs."""

    url: str
    gateway: LocalGateway
    browser: Browser


@dataclass
class Tab:
    """A tab of the browser, and everything that it requested and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("page")
    ports = free_ports(5)
    api = f"http://127.0.0.1:{ports[1]}"
    with ExitStack() as stack:
        stack.enter_context(qdrant(ports[0], directory / "qdrant"))
        embeddings = stack.enter_context(embeddings_of(Site("")))
        environment = {
            "QDRANT_URL": f"http://127.0.0.1:{ports[0]}",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "EMBEDDINGS_URL": embeddings,
            "EMBEDDING_MODEL": "double",
            "SEARCH_FIELDS": '{"lang": "keyword"}',
            "TMPDIR": str(directory),
        }
        command = ["uvicorn", "--factory", "search_api.main:app", "--port", str(ports[1])]
        stack.enter_context(program(f"{api}/health", *command, **environment))
        httpx.put(f"{api}/v1/documents", json={"documents": DOCUMENTS}).raise_for_status()
        gateway = stack.enter_context(
            local_gateway(_inventory(ports, directory), directory / "nginx")
        )
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Served(f"https://127.0.0.1:{ports[4]}/", gateway, browser)
        browser.close()


def _inventory(ports: list[int], directory: Path) -> dict[str, Any]:
    elsewhere = "10.0.0.9"
    return {
        "services": ["llamacpp", "search_api"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": 1025,
        "search_api_port": ports[1],
        "search_api_ui_port": ports[4],
        "search_api_qdrant_url": f"http://{elsewhere}:6333",
        "search_api_redis_url": f"redis://{elsewhere}:6379/0",
        "search_api_embeddings_url": f"http://{elsewhere}:8080/v1",
        "gateway_ca_directory": str(directory / "ca"),
        "gateway_port": ports[2],
        "gateway_status_port": ports[3],
        "gateway_addresses": ["127.0.0.1"],
        "gateway_stranger_burst": 1000,
        "api_clients": [
            {"name": "app", "sha256": digest(KEY)},
            {"name": "other", "sha256": digest(LIMITED), "scope": ["llamacpp"]},
        ],
    }


@pytest.fixture
def tab(served: Served) -> Iterator[Tab]:
    context = served.browser.new_context(ignore_https_errors=True)
    tab = Tab(context.new_page())
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("console", lambda said: tab.complaints.append(said.text))
    tab.page.goto(served.url)
    yield tab
    context.close()


def enter(tab: Tab, key: str = KEY) -> None:
    """As a person does it who uses no mouse: the field for the key has the focus."""
    expect(tab.page.get_by_label("API key")).to_be_focused()
    tab.page.keyboard.type(key)
    tab.page.keyboard.press("Enter")


def ask(tab: Tab, query: str) -> list[str]:
    """Names of the results."""
    tab.page.get_by_role("searchbox").fill(query)
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("status")).to_have_text(re.compile(r"results?, [\d.]+ s"))
    return tab.page.locator("#results h2").all_inner_texts()


def test_person_finds_a_document_with_the_keyboard(served: Served, tab: Tab) -> None:
    assert tab.page.url == f"{served.url}search_api/"
    enter(tab)
    expect(tab.page.get_by_role("searchbox")).to_be_focused()
    expect(tab.page.get_by_label("API key")).to_be_hidden()
    expect(tab.page.locator("#about")).to_have_text(re.compile("19 documents.*english.*lang"))
    tab.page.keyboard.type("sleeping CAT")
    tab.page.keyboard.press("Enter")
    first = tab.page.locator("#results li").first
    expect(first.get_by_role("heading")).to_have_text("cat")
    # By stem, and behind a character that has two units in JavaScript.
    assert first.locator("mark").all_inner_texts() == ["cat", "sleeps"]
    tab.page.locator("body").click()
    tab.page.get_by_role("button", name="Search").focus()
    tab.page.keyboard.press("/")
    expect(tab.page.get_by_role("searchbox")).to_be_focused()
    assert tab.complaints == []


def test_filter_mode_and_near_duplicates_are_sent(tab: Tab) -> None:
    enter(tab)
    assert {"cat", "gpu"} <= {*ask(tab, "cat nvlink")}
    tab.page.get_by_label("Filter").fill('{"lang": "de"}')
    assert ask(tab, "cat nvlink") == ["gpu"]
    tab.page.get_by_label("Filter").fill("lang=de")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("status")).to_have_text(re.compile("The filter is not JSON"))
    tab.page.get_by_label("Filter").fill("")
    tab.page.get_by_label("Ranking").select_option("words")
    assert ask(tab, "nvlink") == ["gpu"]
    assert len([name for name in ask(tab, "minutes of the meeting") if "copy" in name]) == 10
    tab.page.get_by_role("button", name="More results").click()
    expect(tab.page.locator("#results li")).to_have_count(15)
    expect(tab.page.get_by_role("button", name="More results")).to_be_hidden()
    tab.page.get_by_label("hide near-duplicates").check()
    assert len(ask(tab, "minutes of the meeting")) == 1


def test_passage_of_a_long_document_is_shown(tab: Tab) -> None:
    enter(tab)
    assert ask(tab, "robot arm carbon")[0] == "long"
    expect(tab.page.locator("#results li").first).to_contain_text("passage 2 of 2")


def test_document_is_text_and_never_a_part_of_the_page(tab: Tab) -> None:
    enter(tab)
    assert "hostile" in ask(tab, "shown as text")
    expect(tab.page.locator("#results li", has_text="hostile")).to_contain_text("<img src=x")
    assert tab.page.locator("#results img, #results b").count() == 0
    assert tab.page.title() == "Search"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [(new_key(), "Unknown API key."), (LIMITED, "This API key may not call this route.")],
    ids=["unknown", "limited"],
)
def test_key_that_may_not_search_is_named(tab: Tab, key: str, sentence: str) -> None:
    enter(tab, key)
    expect(tab.page.get_by_role("status")).to_have_text(sentence)
    expect(tab.page.get_by_role("searchbox")).to_be_hidden()
    expect(tab.page.get_by_label("API key")).to_be_visible()


def test_key_stays_in_the_tab_and_can_be_forgotten(served: Served, tab: Tab) -> None:
    enter(tab)
    expect(tab.page.get_by_role("searchbox")).to_be_visible()
    tab.page.reload()
    expect(tab.page.get_by_role("searchbox")).to_be_visible()
    other = tab.page.context.new_page()
    other.goto(served.url)
    expect(other.get_by_role("searchbox")).to_be_hidden()
    tab.page.get_by_role("button", name="Forget the key").click()
    tab.page.reload()
    expect(tab.page.get_by_label("API key")).to_be_visible()
    assert KEY not in str(tab.page.context.storage_state())


def test_key_and_query_are_in_no_url_and_no_log(served: Served, tab: Tab) -> None:
    enter(tab)
    ask(tab, "a private matter")
    assert {httpx.URL(url).host for url in tab.requests} == {"127.0.0.1"}
    urls = " ".join([*tab.requests, tab.page.url])
    for secret in (KEY, "private", "%20matter", "+matter"):
        assert secret not in urls
    httpx.get(served.url, headers={"X-Request-ID": "last"}, verify=False)
    served.gateway.logged("last")
    assert KEY not in served.gateway.log_texts and "private" not in served.gateway.log_texts


def test_key_is_not_sent_by_a_browser_without_the_script(served: Served) -> None:
    context = served.browser.new_context(ignore_https_errors=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(served.url)
    page.get_by_label("API key").fill(KEY)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url + str(request.post_data)))
    page.keyboard.press("Enter")  # which waits for no page, unlike a click
    page.wait_for_timeout(500)
    assert KEY not in page.url + str(sent)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_browser_and_are_legible(served: Served, scheme: Any) -> None:
    context = served.browser.new_context(ignore_https_errors=True, color_scheme=scheme)
    tab = Tab(context.new_page())
    tab.page.goto(served.url)
    enter(tab)
    ask(tab, "cat")
    text = _brightness(tab.page, "body", "color")
    marked = _brightness(tab.page, "mark", "backgroundColor")
    assert (text < 80) == (scheme == "light") and abs(text - marked) > 100
    context.close()


def _brightness(page: Page, selector: str, part: str) -> float:
    script = f"each => getComputedStyle(each).{part}"
    colour = page.locator(selector).first.evaluate(script)
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
