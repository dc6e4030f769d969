"""The pages as a reader meets them, in headless Chromium: nothing on the console, nothing fetched, text stays text."""

import re
import shutil
import time
from dataclasses import replace

import pytest

from heedful.inspection.attention_page import attention_page
from heedful.lab.experiment import run_and_keep
from heedful.lab.report import write_report
from heedful.translator import Translator

SIZES = pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium here; install the package chromium")
    with driver.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Return a function that opens HTML at a width and in a colour scheme; complaints fail the test at its end."""
    complaints = []

    def open_page(html, width, scheme):
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    assert complaints == []


@SIZES
def test_every_view_of_an_explanation_opens(visit, width, scheme):
    found = Translator.load("en-de").explain("The little dog is sleeping.")
    page = visit(attention_page(found), width, scheme)
    assert page.locator(".target").inner_text().strip() == found.text
    assert page.locator(".grid button").count() == 8
    assert page.locator(".attention svg").count() == 2
    page.locator(".grid button").nth(5).click()
    assert "layer 1, head 1" in page.locator("figcaption").inner_text()
    page.get_by_role("button", name="Encoder to itself").click()
    assert page.locator(".grid button").count() == 16
    cells = page.locator(".attention svg").first.locator(".cell")
    assert cells.count() == len(found.source_pieces) ** 2
    page.get_by_role("button", name="Decoder to itself").click()
    _, target = found.alignment[-2]
    page.locator(".target .word").nth(target).hover()
    linked = page.locator(".source .word.linked")
    expected = {number for number, other in found.alignment if other == target}
    assert linked.count() == len(expected)
    assert page.locator("svg .best").count() == len(found.target_pieces)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing hangs over the side"


def test_characters_that_are_spelt_in_bytes_are_read_as_characters(visit):
    found = Translator.load("en-de").explain("We met in the café, 😀 of course.")
    assert "<0xC3>" in found.source_pieces, "or the rest shows nothing"
    page = visit(attention_page(found), 1200, "light")
    assert "café" in page.locator(".source").inner_text()
    assert "😀" in page.locator(".source").inner_text()
    assert "<0x" not in page.locator(".target").inner_text()
    assert (page.locator(".source").get_attribute("lang"), page.locator(".target").get_attribute("lang")) == (
        "en",
        "de",
    )


@SIZES
def test_text_of_the_model_stays_text(visit, width, scheme):
    found = Translator.load("en-de").explain('</script><script>alert("no")</script><img src=x onerror=alert(1)>')
    page = visit(attention_page(found), width, scheme)
    assert page.locator("main img, main script").count() == 0
    assert "script" in page.locator(".source").inner_text()
    assert page.locator(".grid button").count() == 8


@SIZES
def test_the_labs_report_opens(visit, tmp_path, width, scheme):
    pytest.importorskip("matplotlib")
    for name in ("attention-steps", "residuals"):
        list(run_and_keep(name, True, tmp_path / "lab"))
    page = visit(write_report(tmp_path / "lab").read_text(encoding="utf-8"), width, scheme)
    assert page.locator("section").count() == page.locator("figure svg[role=img][aria-label]").count() == 2
    page.locator("summary", has_text="weights").click()
    assert page.locator("details[open] td").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing hangs over the side"


@pytest.fixture(scope="module")
def address(served):
    """Serve the box's English to German model."""
    from heedful.serve.app import make_app

    with served(make_app([Translator.load("en-de")])) as found:
        yield found


def test_the_page_of_serve_waits_for_its_turn_where_many_ask(browser, address):
    page, busy = browser.new_page(), []

    def answer(route):
        if len(busy) == 2:
            route.continue_()
        else:
            busy.append(route.fulfill(status=503, headers={"retry-after": "1"}, json={"error": "too many"}))

    page.route("**/explain", answer)
    page.goto(address)
    page.locator("#words .source", has_text="sofa").wait_for()
    assert len(busy) == 2
    assert page.locator("#problem").is_hidden()
    page.close()


@SIZES
def test_the_page_of_serve_translates_and_every_view_of_it_opens(browser, address, width, scheme):
    complaints = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: None if request.url.startswith(address) else complaints.append(request.url))
    page.goto(address)
    page.locator("#words .source", has_text="sofa").wait_for()  # the example that a newcomer sees
    assert page.locator("#sentences").is_hidden(), "there is one to choose from"
    page.wait_for_function("document.activeElement.id === 'text'")  # the browser complains of who is sooner than it
    assert page.locator("#pair").inner_text().strip() == "English to German"
    page.locator("#text").fill("https://example.com")
    page.locator("#inside").wait_for(state="hidden")
    assert page.locator("#translation").text_content() == "https://example.com"
    assert page.locator("#problem").is_hidden(), "there is nothing to look into, and nothing wrong"
    page.locator("#text").fill("Good morning!\n\nThe little dog is sleeping. <script>alert(1)</script>")
    page.locator("#words .source", has_text="Good").wait_for()
    asked = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(address)))
    page.get_by_role("button", name="The little dog").click()
    page.locator("#words .source", has_text="dog").wait_for()
    assert asked == ["/explain"], "the text is translated already"
    assert "\n\n" in page.locator("#translation").text_content()
    page.locator("#words .source .word", has_text="dog").hover()
    assert page.locator("#words .target .word.linked").count() >= 1
    assert page.locator(".grid button").count() == 8
    page.locator(".grid button").nth(5).click()
    page.get_by_role("button", name="Switch its whole layer off").click()
    page.locator("#without", has_text="cross.1").wait_for()
    focused = "document.activeElement.textContent"
    assert page.evaluate(focused) == "Switch its whole layer on", "the keyboard stays where it was, the head chosen"
    page.get_by_role("button", name="Switch all on").click()
    page.locator("#without").wait_for(state="hidden")
    assert page.evaluate(focused) == "Attention"
    for view, shown in {
        "Alternatives": "table tr",
        "Step by step": ".numbers",
        "Beam": "svg .best",
        "Positions": "svg .cell",
    }.items():
        page.get_by_role("tab", name=view).click()
        assert page.locator(f"#view {shown}").count() > 0
    page.get_by_role("tab", name="Positions").press("ArrowRight")
    assert page.get_by_role("tab", name="Alternatives").get_attribute("aria-selected") == "true"
    second = page.locator("#view button").nth(1)
    text = second.inner_text()
    second.click()
    page.locator("#view button[aria-pressed=true]", has_text=text).wait_for()
    assert page.locator("#words .target").inner_text().strip() == text
    page.get_by_role("tab", name="Step by step").click()
    page.get_by_role("button", name="Next").click()
    assert "step 2 of 13" in page.locator("#view").inner_text()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width, "nothing hangs over the side"
    assert page.locator("#inside script").count() == 0
    assert complaints == []


def test_what_cannot_be_explained_is_said_and_the_last_explanation_goes(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.locator("#words .source", has_text="sofa").wait_for()
    page.locator("#text").fill("猫" * 100)  # three bytes each: more pieces than are explained
    page.locator("#problem", has_text="may have 256").wait_for()
    assert page.locator("#inside").is_hidden()
    page.locator("#text").fill("word " * 5000)
    page.locator("#problem", has_text="characters").wait_for()
    assert page.locator("#translation").inner_text() == ""
    page.locator("#text").fill("Good morning!")
    page.locator("#words .source", has_text="Good").wait_for()
    assert page.locator("#problem").is_hidden()


def test_why_a_later_sentence_cannot_be_explained_is_said(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.locator("#text").fill("Good morning! The little dog is sleeping.")
    page.locator("#words .source", has_text="Good").wait_for()
    page.route("**/explain", lambda route: route.fulfill(status=503, json={"error": "too many wait"}))
    page.get_by_role("button", name="The little dog").click()
    page.locator("#problem", has_text="too many wait").wait_for()
    page.unroute("**/explain")
    page.locator("#text").fill("Good morning! The little cat is sleeping.")
    page.locator("#words .source", has_text="cat").wait_for()  # still the second
    page.locator("#text").fill("Good evening!")  # which has become the only one
    page.locator("#words .source", has_text="evening").wait_for()


def test_where_a_later_sentence_is_too_long_to_explain_the_first_one_is(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.locator("#text").fill("Good morning! " + "\u732b" * 100)
    page.locator("#words .source", has_text="Good").wait_for()
    page.locator("#sentences button").nth(1).click()
    page.locator("#problem", has_text="may have 256").wait_for()
    assert page.locator("#words .source", has_text="Good").is_visible()
    assert page.locator("#sentences button").first.get_attribute("aria-pressed") == "true"


def test_what_is_typed_before_the_languages_are_known_stays(browser, address):
    page = browser.new_page()
    page.route("**/languages", lambda route: time.sleep(1) or route.continue_())
    page.goto(address, wait_until="commit")
    page.locator("#text").fill("Good evening!")
    page.locator("#words .source", has_text="evening").wait_for()
    assert page.locator("#problem").is_hidden()


def test_a_server_that_knows_no_languages_is_complained_about(browser, address):
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route("**/languages", lambda route: route.fulfill(status=500, body="no"))
    page.goto(address)
    page.locator("#problem", has_text="load this page again").wait_for()
    page.locator("#text").fill("Good evening!")
    page.wait_for_timeout(400)
    assert complaints == []


@pytest.mark.parametrize(
    "fail",
    [
        lambda route: route.fulfill(status=502, content_type="text/html", body="<html>Bad Gateway</html>"),
        lambda route: route.abort(),
    ],
    ids=["a proxy answers", "nobody answers"],
)
def test_a_server_that_is_gone_for_a_while_is_named_and_asked_again_at_will(browser, address, fail):
    page = browser.new_page()
    page.goto(address)
    page.locator("#words .source", has_text="sofa").wait_for()
    page.route("**/translate", fail)
    page.locator("#text").fill("Good evening!")
    page.locator("#problem", has_text="The server").wait_for()
    assert "JSON" not in page.locator("#problem").inner_text()
    page.unroute("**/translate")
    page.get_by_role("button", name="Try again").click()
    page.locator("#words .source", has_text="evening").wait_for()
    assert page.locator("#problem").is_hidden()


def with_heads_off(browser, address, what):
    """Open the page of `serve` on its example, and switch off a head of the last layer, or all of it."""
    page = browser.new_page()
    page.goto(address)
    page.locator("#words .source", has_text="sofa").wait_for()
    page.locator(".grid button").nth(5).click()
    page.get_by_role("button", name=f"Switch {what} off").click()
    page.locator("#without", has_text="cross.1").wait_for()
    return page


def test_heads_that_the_model_has_no_more_are_switched_on_again(browser, address):
    page = with_heads_off(browser, address, "this head")

    def without_heads(route):
        asked = route.request.post_data_json["without"]
        route.fulfill(status=400, json={"error": "no attention"}) if asked else route.continue_()

    page.route("**/explain", without_heads)
    page.locator("#text").fill("Good evening!")
    page.locator("#words .source", has_text="evening").wait_for()
    assert page.locator("#without").is_hidden()


def test_the_keyboard_is_seen_on_a_head_that_is_switched_off(browser, address):
    page = with_heads_off(browser, address, "its whole layer")
    off = page.locator(".grid button.off")
    assert ", switched off" in off.first.get_attribute("aria-label")
    off.first.press("Shift+Tab")
    page.keyboard.press("Tab")
    seen = page.evaluate("[document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle]")
    assert seen == ["off", "solid"]


def test_languages_that_the_server_has_no_name_for_have_their_own(browser, address):
    page = browser.new_page()
    known = [{"code": "en", "name": "English", "targets": ["pl"]}, {"code": "pl", "name": "pl", "targets": []}]
    page.route("**/languages", lambda route: route.fulfill(json=known))
    page.goto(address)
    page.locator("#pair option", has_text="English to Polish").wait_for(state="attached")


def test_many_sentences_leave_the_explanation_in_sight(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(address)
    page.locator("#text").fill("Good morning! " * 60)
    page.locator("#sentences button").nth(59).wait_for()
    top = {place: page.locator(place).bounding_box()["y"] for place in ("#sentences", "#words")}
    assert top["#words"] - top["#sentences"] < 300


@pytest.mark.parametrize("word", ["Geschwindigkeitsbegrenzungen" * 2, "https://example.com/" + "a" * 90])
def test_a_long_word_is_broken_on_a_narrow_page(visit, word):
    found = Translator.load("en-de").explain(f"The {word} is here.")
    page = visit(attention_page(found), 320, "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_page_of_a_model_without_some_heads_says_so(visit):
    translator = Translator.load("en-de")
    page = visit(attention_page(translator.without("cross.1").explain("The dog sleeps."), ("cross.1",)), 1200, "light")
    assert "Switched off: cross.1" in page.locator("main").inner_text()
    assert page.locator(".grid .off").count() == 4


def test_nothing_is_cut_off_on_paper(visit):
    found = Translator.load("en-de").explain("The little dog that lives next door sleeps on the old brown sofa again.")
    page = visit(attention_page(found), 718, "light")
    page.emulate_media(media="print")
    for svg in page.locator("svg").all():
        assert svg.evaluate("e => e.getBoundingClientRect().width - e.parentElement.clientWidth") < 1


def test_what_is_chosen_can_be_told_where_the_colours_are_the_readers(browser, visit, tmp_path):
    found = Translator.load("en-de").explain("The dog sleeps.")
    visit(attention_page(found), 1200, "light")  # writes it
    page = browser.new_page(forced_colors="active")
    page.goto((tmp_path / "page.html").as_uri())
    widths = {
        pressed: page.locator(f".tabs button[aria-pressed={pressed}]").first.evaluate(
            "e => getComputedStyle(e).borderTopWidth"
        )
        for pressed in ("true", "false")
    }
    assert widths["true"] != widths["false"]


def test_wide_characters_have_room_in_every_drawing(visit):
    found = Translator.load("en-de").explain("Good morning!")

    def widths(piece):  # by what is drawn, not by what fonts are here
        page = visit(attention_page(replace(found, source_pieces=[piece] * len(found.source_pieces))), 1200, "light")
        page.get_by_role("button", name="Encoder to itself").click()
        return [svg.get_attribute("width") for svg in page.locator(".attention svg").all()]

    narrow, wide = widths("ninety"), widths("\u65e9\u4e0a\u597d\u4e16\u754c\u4eec")
    assert len(narrow) == 2
    assert all(float(one) > float(other) + 6 * 4 for one, other in zip(wide, narrow, strict=True))


def test_who_cannot_see_the_page_is_told_what_it_shows(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.locator("#words .source", has_text="sofa").wait_for()
    assert page.get_by_label("Your text").count() == page.get_by_role("combobox", name="Translate").count() == 1
    languages = [page.locator(place).get_attribute("lang") for place in ("#text", "#translation", ".source", ".target")]
    assert languages == ["en", "de", "en", "de"]
    page.get_by_role("img", name=re.compile("^dog, aligned with ")).focus()
    assert page.locator("#words .target .linked").count() >= 1
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, textarea, [role=img], [role=tab], [role=tabpanel]")]
            .filter((e) => !(e.ariaLabel || e.getAttribute("aria-labelledby") || e.labels?.length))
            .filter((e) => !e.textContent.trim())
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
