import base64
import dataclasses
import math
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from markdown import markdown
from playwright.sync_api import sync_playwright

from interplay.evidence.claims import ClaimTest, Verdict
from interplay.evidence.outcome import Environment, Failure, JudgedClaim, JudgedPart, Outcome
from interplay.evidence.report import SYMBOLS, Card, claims_table, interval_plot, write_gallery

HOSTILE = "<script>window.broken = true</script>\"'><img src=x onerror=alert(1)>&amp;"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4000 900"><rect id="a" width="4000" height="900"/></svg>'
HOLDS, FAILS, INCONCLUSIVE = Verdict.HOLDS, Verdict.FAILS, Verdict.INCONCLUSIVE
UNDEFINED = (math.nan, math.nan, math.nan)


def part(verdict=HOLDS, description="error: rule - plain", threshold="< -0.05", figures=(-0.2, -0.25, -0.15), **more):
    effect, low, high = figures
    return JudgedPart(
        **{"units": 40, "kind": "paired difference", "reason": "", "regions": ((-math.inf, -0.05),)} | more,
        description=description,
        threshold=threshold,
        effect=effect,
        low=low,
        high=high,
        verdict=verdict,
    )


def claim(id, verdict, *parts, sentence="The method beats the baseline.", paper="10.7 % error", label=None):
    parts = list(parts) or [part(verdict)]
    return JudgedClaim(id=id, sentence=sentence, paper=paper, label=label, verdict=verdict, parts=parts)


def outcome(slug, *claims, **more):
    usual = {
        "preset": "cpu",
        "seeds": 5,
        "config": {"units": 50, "rates": [0.1, 0.2]},
        "caveat": "",
        "failures": [],
        "environment": Environment(python="3.12.1", packages={"torch": "2.13.0"}, system="Linux x86_64", cores=2),
        "fingerprint": "0123456789ab",
        "finished": datetime(2026, 11, 23, 15, 2, 11, tzinfo=UTC),
        "trial_seconds": 161.2,
    }
    return Outcome(slug=slug, claims=list(claims), **usual | more)


def card(slug, family="plasticity", outcome=None, **more):
    usual = {
        "title": f"On {slug}",
        "authors": "Hebb, Oja",
        "year": 1982,
        "paper_url": "https://arxiv.org/abs/2303.00914",
        "summary": "Neurons compete.",
        "import_line": f"from interplay.{family}.{slug} import Rule",
    }
    return Card(slug=slug, family=family, outcome=outcome, **usual | more)


def gallery(folder, *cards):
    path = folder / "out" / "index.html"
    write_gallery(cards, path)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], "", None
        self.feed(html)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open not in {"script", "style"}:
            self.text += f" {data}"

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_card_says_what_was_claimed_measured_and_concluded(tmp_path):
    shown = outcome("rule", claim("beats", HOLDS, label="emergent"), caveat="Small images only.")
    page = Page(gallery(tmp_path, card("rule", outcome=shown, figure_svg=SVG)))
    for text in (
        "On rule", "Hebb, Oja, 1982", "arXiv:2303.00914", "Neurons compete.",
        "✓ holds", "The method beats the baseline.", "emergent", "10.7 % error",
        "\N{MINUS SIGN}0.2 [\N{MINUS SIGN}0.25, \N{MINUS SIGN}0.15]", "< \N{MINUS SIGN}0.05",
        "error: rule - plain", "paired difference, n = 40", "Small images only.",
        "from interplay.plasticity.rule import Rule",
        "Preset cpu", "5 seeds", "2 min 41 s of trials", "23 November 2026", "2.13.0", "0.1, 0.2", "0123456789ab",
    ):  # fmt: skip
        assert text in page.text, text
    (image,) = page.all("img")
    encoded = image["src"].removeprefix("data:image/svg+xml;base64,")
    assert base64.b64decode(encoded).decode() == SVG
    assert "rule" in image["alt"]


def test_several_parts_show_their_own_figures_and_verdicts(tmp_path):
    undefined = part(INCONCLUSIVE, "slope: b", "in [0.2, 0.3]", UNDEFINED, units=3, reason="1 of 3 units are undefined")
    defined = part(FAILS, "slope: a", "> 0.1", (0.05, 0.04, 0.06))
    page = Page(gallery(tmp_path, card("rule", outcome=outcome("rule", claim("both", FAILS, defined, undefined)))))
    assert "✗ fails The method beats the baseline. 10.7 % error ✗ fails: 0.05 [0.04, 0.06]" in page.text
    assert "? inconclusive: n/a" in page.text
    assert "1 of 3 units are undefined" in page.text
    assert page.text.count("The method beats the baseline.") == 1
    plots = [span for span in page.all("span") if span.get("class", "").startswith("plot")]
    assert len(plots) == 1


def test_the_strip_counts_claims(tmp_path):
    first = outcome("a", claim("1", HOLDS), claim("2", HOLDS), claim("3", FAILS))
    second = outcome("b", claim("1", INCONCLUSIVE))
    text = Page(gallery(tmp_path, card("a", outcome=first), card("b", outcome=second), card("c"))).text
    assert "systems 3 claims 4 ✓ hold 2 ✗ fails 1 ? inconclusive 1" in text


def test_a_system_that_was_not_run_says_how_to_run_it(tmp_path):
    text = Page(gallery(tmp_path, card("rule"))).text
    assert "not run" in text
    assert "interplay run rule" in text


def test_what_raised_is_shown_with_its_traceback_folded(tmp_path):
    failures = [
        Failure(seed=3, error="ValueError: too hot", traceback="Traceback: line 7"),
        Failure(seed=None, error="figure: KeyError", traceback=""),
    ]
    page = Page(gallery(tmp_path, card("rule", outcome=outcome("rule", failures=failures))))
    assert "2 parts of this run raised an error Seed 3 ValueError: too hot Traceback Traceback: line 7" in page.text
    assert "Figure figure: KeyError" in page.text
    assert all("open" not in details for details in page.all("details"))


def test_text_is_escaped_wherever_it_comes_from(tmp_path):
    hostile_part = part(description=HOSTILE, threshold=HOSTILE, reason=HOSTILE, kind=HOSTILE)
    hostile_outcome = outcome(
        HOSTILE,
        claim(HOSTILE, HOLDS, hostile_part, sentence=HOSTILE, paper=HOSTILE),
        config={HOSTILE: HOSTILE},
        caveat=HOSTILE,
        failures=[Failure(seed=1, error=HOSTILE, traceback=HOSTILE)],
        environment=Environment(python=HOSTILE, packages={HOSTILE: HOSTILE}, system=HOSTILE, cores=1),
        fingerprint=HOSTILE,
    )
    texts = {field.name: HOSTILE for field in dataclasses.fields(Card)}
    shown = Card(**texts | {"year": 2020, "outcome": hostile_outcome, "paper_url": f"https://{HOSTILE}"})
    page = Page(gallery(tmp_path, shown))
    assert len(page.all("script")) == 1
    assert [image["src"].partition(",")[0] for image in page.all("img")] == ["data:image/svg+xml;base64"]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count("window.broken") >= 18


def test_the_file_needs_nothing_else(tmp_path):
    html = gallery(tmp_path, card("rule", outcome=outcome("rule", claim("a", HOLDS)), figure_svg=SVG))
    for tag, attributes in Page(html).elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            address = attributes.get(name) or "#"
            assert address.startswith(("data:", "#")) or (tag, name) == ("a", "href"), address
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|sendBeacon", html)
    assert "default-src 'none'" in html


def test_equal_cards_make_equal_files(tmp_path):
    shown = card("rule", outcome=outcome("rule", claim("a", HOLDS)), figure_svg=SVG)
    assert gallery(tmp_path / "a", shown) == gallery(tmp_path / "b", shown)


def test_cards_that_contradict_themselves_are_refused(tmp_path):
    with pytest.raises(ValueError, match="paper_url must start with https://"):
        card("rule", paper_url="javascript:alert(1)")
    with pytest.raises(ValueError, match="the card of rule carries the outcome of other"):
        card("rule", outcome=outcome("other"))
    with pytest.raises(ValueError, match="'rule' names several"):
        write_gallery([card("rule"), card("rule")], tmp_path / "index.html")


UNBOUNDED = ClaimTest("mean", "x", estimate=None)


@pytest.mark.parametrize(
    ("test", "true", "untrue"),
    [
        (UNBOUNDED.above(0.5), [0.6, 1e6], [0.4, -3]),
        (UNBOUNDED.below(-1.5e-7), [-1], [0, 1]),
        (UNBOUNDED.between(-1, 2), [0, 1.9], [-1.1, 2.1]),
        (UNBOUNDED.outside(-1, 2), [-1.1, 2.1], [0, 1.9]),
        (UNBOUNDED.outside(0, 0), [-0.1, 0.1], []),
    ],
)
@pytest.mark.parametrize("kind", ["mean", "paired ratio"])
def test_a_point_is_drawn_inside_the_region_exactly_where_the_claim_is_true(test, true, untrue, kind):
    for value in [*true, *untrue]:
        plot = interval_plot(part(regions=test.regions, figures=(value, value, value), kind=kind))
        inside = any(start <= plot.effect <= start + length for start, length in plot.regions)
        assert inside == (value in true), value
        assert 0 < plot.effect < 100
        assert all(0 <= start <= start + length <= 100.01 for start, length in plot.regions)


def test_ratios_are_drawn_on_a_logarithmic_axis():
    plot = interval_plot(part(regions=((-math.inf, 1),), figures=(1, 0.25, 4), kind="paired ratio"))
    start, length = plot.interval
    assert plot.effect == pytest.approx(50)
    assert start + length / 2 == pytest.approx(50)


def test_what_is_undefined_is_not_drawn():
    assert interval_plot(part(figures=(0.5, math.nan, math.nan))) is None


def test_the_markdown_table_has_a_row_a_part_and_survives_special_characters():
    awkward = "a | b *c* _d_ `e` <i>f</i> [g](h) \\ &amp; ~i~\nj"
    shown = outcome(
        "rule",
        claim("1", HOLDS, sentence=awkward, paper=awkward, label="trained-in"),
        claim("2", FAILS, part(HOLDS, "first"), part(FAILS, "second", "> 3", (1, 0, 2))),
    )
    html = markdown(claims_table(shown), extensions=["tables"])
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    header, first, second, third = rows
    assert header == []
    assert [len(row) for row in (first, second, third)] == [5, 5, 5]
    assert first[0] == "✓ <strong>holds</strong>"
    assert first[1].endswith("(trained-in)")
    paper = Page(first[2])
    assert paper.text == " ".join(awkward.split())
    assert paper.elements == []
    assert second[0] == "✗ <strong>fails</strong>"
    assert Page(second[3]).text == "✓ -0.2 [-0.25, -0.15] first; paired difference, n = 40"
    assert third[:3] == ["", "", ""]
    assert Page(third[4]).text == "> 3"


def test_every_verdict_has_its_own_mark():
    assert len(set(SYMBOLS.values())) == len(Verdict)


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail("the gallery is tested in a real browser and none is here: apt-get install chromium", pytrace=False)
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu", *quiet]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_gallery(browser, tmp_path):
    """Opens a gallery of three systems; afterwards, no complaint and no request may have come from it."""
    long_line = 'File "a/rather/long/path.py", line 7, in a_function_with_a_long_name(with_some, arguments) ' * 2
    several_parts = claim("1", HOLDS, part(HOLDS), part(HOLDS, threshold="in [-0.30001, -0.10001]"))
    failure = Failure(seed=0, error="E" * 90, traceback=long_line)
    alpha = outcome("alpha", several_parts, claim("2", FAILS), failures=[failure])
    beta = outcome("beta", claim("1", HOLDS, sentence="Sharp competition wins."))
    path = tmp_path / "index.html"
    cards = [
        card("alpha", family="kinetics", summary="Predators and prey.", figure_svg=SVG, outcome=alpha),
        card("beta", outcome=beta),
        card("gamma", title=HOSTILE, import_line=f"from interplay.plasticity.gamma import {'Long' * 30}"),
    ]
    write_gallery(cards, path)
    complaints, requests, contexts = [], [], []

    def open_at(width=1280, height=900, **more):
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} <= {path.as_uri()}


def visible_cards(page):
    return page.eval_on_selector_all(".card", "all => all.filter(card => card.offsetParent).map(card => card.id)")


def test_filters_and_search_choose_cards(open_gallery):
    page = open_gallery()
    assert visible_cards(page) == ["alpha", "beta", "gamma"]
    fails, holds = (page.get_by_role("button", name=name) for name in ("fails 1", "holds 2"))
    fails.click()
    assert visible_cards(page) == ["alpha"]
    assert fails.get_attribute("aria-pressed") == "true"
    assert page.get_by_role("status").inner_text() == "1 of 3 systems"
    holds.click()  # another verdict takes the place of the first
    assert fails.get_attribute("aria-pressed") == "false"
    assert visible_cards(page) == ["alpha", "beta"]
    page.get_by_role("button", name="plasticity 2").click()
    assert visible_cards(page) == ["beta"]
    holds.click()  # pressed again, it lets go
    assert visible_cards(page) == ["beta", "gamma"]

    page.get_by_label("Search").fill("COMPETITION beta")
    assert visible_cards(page) == ["beta"]
    page.get_by_label("Search").fill("no such thing")
    assert visible_cards(page) == []
    page.get_by_role("button", name="Clear them").click()
    assert visible_cards(page) == ["alpha", "beta", "gamma"]


def test_filters_work_from_the_keyboard(open_gallery):
    page = open_gallery()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.value") == "not run":
            break
    page.keyboard.press("Space")
    assert visible_cards(page) == ["gamma"]


def test_a_link_to_a_card_shows_it_even_where_it_was_filtered_away(open_gallery):
    page = open_gallery()
    page.get_by_role("button", name="fails 1").click()
    page.evaluate("location.hash = 'beta'")
    page.wait_for_function("document.querySelector('#beta').offsetParent !== null")


def test_the_copy_button_copies_the_import_line(open_gallery):
    page = open_gallery(permissions=["clipboard-read", "clipboard-write"])
    page.locator("#beta").get_by_role("button", name="Copy").click()
    page.locator("#beta").get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "from interplay.plasticity.beta import Rule"


def test_without_scripts_every_card_shows_and_no_dead_control_does(open_gallery):
    page = open_gallery(java_script_enabled=False)
    assert all(page.locator(f"#{slug}").is_visible() for slug in ("alpha", "beta", "gamma"))
    assert [button for button in page.get_by_role("button").all() if button.is_visible()] == []


def test_nothing_injected_runs(open_gallery):
    assert open_gallery().evaluate("window.broken") is None


@pytest.mark.parametrize("width", [320, 390, 700, 1000, 1280])
def test_nothing_overflows_sideways(open_gallery, width):
    page = open_gallery(width=width)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    overhang = """all => all.flatMap(card => [...card.querySelectorAll("td, p, code, img, dd, button, .chip")]
        .filter(one => one.getBoundingClientRect().right > card.getBoundingClientRect().right)
        .map(one => one.textContent))"""
    assert page.eval_on_selector_all(".card", overhang) == []


@pytest.mark.parametrize(("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")])
def test_text_is_readable_on_what_is_behind_it(open_gallery, scheme, media):
    page = open_gallery(color_scheme=scheme)
    page.emulate_media(media=media)
    texts = page.eval_on_selector_all(
        ".chip, .how, .paper, .byline, .lead, .eyebrow, .totals dt, .mark, .failures :is(h3, b), .count, a, button",
        """all => all.filter(one => one.offsetParent).map(one => {
            let behind = one;
            while (/, 0\\)$/.test(getComputedStyle(behind).backgroundColor) && behind.parentElement) {
                behind = behind.parentElement;
            }
            return [one.textContent, getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
        })""",
    )
    assert len(texts) > 20
    poor = [entry for entry in texts if contrast(*entry[1:]) < 4.5]  # the bound of WCAG 2, level AA
    assert poor == []


def contrast(first, second):
    def luminance(colour):
        channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)
