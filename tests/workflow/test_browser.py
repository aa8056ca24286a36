"""The report in a real browser: silent, self-contained, legible at every width, safe with hostile text."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser

from pocketvlm.provenance import read_json
from tests import extra_tables
from tests.browser import opened
from tests.drawn_report import draw_all, render_report
from tests.synthetic_records import Study, write_study

pytestmark = pytest.mark.slow

HOSTILE = (
    "</pre></blockquote><h1 id=owned>owned</h1><script>document.title = 'owned'; alert(1)</script>"
    '<img src="https://example.invalid/x.png" onerror="alert(2)"><a href="javascript:alert(3)">x</a>'
    "{{ 7 * 7 }} {% include 'index.html.j2' %} ${7 * 7} \x07\u202eright-to-left\u2066 &lt;b&gt; "
    "<!-- ]]> --></script><svg onload=alert(4)><style>*{display:none}</style>"
)
VISIBLE = {"\x07": "⟨U+0007⟩", "\u202e": "⟨U+202E⟩", "\u2066": "⟨U+2066⟩"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """An invented study with figures, in SVG and PNG, and a report."""
    study = write_study(tmp_path_factory.mktemp("study") / "results", repeats=3)
    draw_all(study, png=True)
    return study


@pytest.fixture(scope="module")
def page_file(study: Study) -> Path:
    """The study's report, with a table of each other stage."""
    first = read_json(study.cells_json)["cells"][0]["cell"]
    base = study.cells_json.parent
    return render_report(
        study, extras=extra_tables.every(base / "extras", first, base / "figures" / "phases.svg")
    )


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: POCKETVLM_SCREENSHOTS, or else a temporary folder."""
    named = os.environ.get("POCKETVLM_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_silent_self_contained_and_within_the_window(
    browser: Browser, page_file: Path, screenshots: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    with opened(browser, page_file, width=width, scheme=scheme) as (page, seen):
        for unfolded in (False, True):
            if unfolded:
                page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("document.body.scrollWidth") <= width
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = false)")
        picture = screenshots / f"report-{scheme}-{width}.png"
        page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 20_000
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in background[4:-1].split(",")) > 3 * 128
        assert light == (scheme == "light")
        assert seen.messages == []
        assert seen.requests == [page_file.resolve().as_uri()]


def test_every_link_leads_somewhere(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, _):
        links = page.eval_on_selector_all("a[href]", "found => found.map(one => one.getAttribute('href'))")
        ids = page.eval_on_selector_all("[id]", "found => found.map(one => one.id)")
    assert len(ids) == len(set(ids))
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside <= set(ids)
    outside = [link for link in links if not link.startswith("#")]
    assert all(not urlsplit(link).scheme for link in outside)
    absent = [link for link in outside if not (page_file.parent / unquote(link)).exists()]
    assert absent == []
    assert sum("/raw/" in link for link in outside) == 12 * 7


def test_every_number_of_the_headline_leads_to_its_runs(
    browser: Browser, page_file: Path, study: Study
) -> None:
    with opened(browser, page_file) as (page, _):
        targets = page.eval_on_selector_all(
            ".headline tbody td.num > a", "found => found.map(one => one.getAttribute('href'))"
        )
        numbers = [target for target in targets if target.startswith("#v-")]
        assert len(numbers) == 4 * 6 + 2 * 3
        for target in numbers:
            row = page.locator(target)
            values = row.locator("td.num").all_inner_texts()[3:]
            assert len([value for value in values if value != "NA"]) == 3
            heads = row.locator("xpath=ancestor::table").locator("thead a").all()
            assert len(heads) == 3
            run = page.locator(heads[0].get_attribute("href") or "")
            assert run.locator("a[href*='/raw/']").count() == 7


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=2, quantisations=("Q4_0",), answer=HOSTILE)
    identity = study.identities["local"]
    identity.write_text(identity.read_text().replace('"Invented 1"', '"<script>alert(4)</script>"'))
    draw_all(study)
    page_file = render_report(study)
    with opened(browser, page_file) as (page, seen):
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        shown = page.locator("#answers pre").first.inner_text()
        assert shown == HOSTILE.translate({ord(char): text for char, text in VISIBLE.items()})
        assert page.title() != "owned"
        assert page.locator("#owned").count() == 0
        assert (
            page.locator("#answers .reply :is(img, svg, style, a[href^='javascript']), main script").count()
            == 0
        )
        assert "<script>alert(4)</script>" in page.locator("#devices").inner_text()
        assert seen.dialogs == []
        assert seen.messages == []
        assert len(seen.requests) == 1


def test_the_policy_stops_a_script_and_a_request_that_got_in(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, seen):
        page.evaluate(
            """() => {
                const script = document.createElement('script');
                script.textContent = 'document.title = "owned"';
                const image = document.createElement('img');
                image.src = 'http://127.0.0.1:9/x.png';
                document.body.append(script, image);
            }"""
        )
        reached = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused')")
        assert reached == "refused"
        assert page.title() != "owned"
        assert sum("Content Security Policy" in message for message in seen.messages) >= 3


def test_the_keyboard_reaches_numbers_and_unfolds_what_they_link_to(
    browser: Browser, page_file: Path
) -> None:
    with opened(browser, page_file) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
        reached = []
        for _step in range(60):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.id")
            )
            if str(reached[-1]).startswith("#v-"):
                break
        assert "theme" in reached
        assert "#provenance" in reached
        target = reached[-1]
        assert target.startswith("#v-c1-run-duration")
        assert not page.locator(target).is_visible()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector(location.hash).checkVisibility()")


def test_everything_has_a_name(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, _):
        unnamed = page.evaluate(
            """() => {
                const named = (one) => (one.getAttribute('aria-label') || one.textContent || '').trim();
                const all = (selector) => [...document.querySelectorAll(selector)];
                const bare = all('a, button, summary, [role=region]').filter(e => !named(e));
                const told = (e) => e.querySelector(':scope > title') && e.querySelector(':scope > desc');
                const shown = all('svg:not([aria-hidden])');
                const pictures = shown.filter(e => !told(e) || e.getAttribute('role') !== 'img');
                const images = all('img').filter(e => !e.alt);
                const heads = all('th').filter(e => !e.scope);
                return [...bare, ...pictures, ...images, ...heads].map(e => e.outerHTML.slice(0, 200));
            }"""
        )
        assert unnamed == []
        # Summaries, timelines, a figure of the paper, the soak's, the graph of rules.
        assert page.locator("svg[role=img]").count() == 3 + 4 + 1 + 1 + 1
        assert page.get_by_role("slider").count() == 4
        assert page.get_by_role("img", name="Tokens per second").count() == 1
        levels = page.eval_on_selector_all("h1, h2, h3", "found => found.map(one => Number(one.tagName[1]))")
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_emulated_and_synthetic_are_said_at_the_top_and_everywhere(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, width=390) as (page, _):
        top = page.locator(".warning").bounding_box()
        assert top is not None
        assert top["y"] + top["height"] < 900
        first = page.locator("#numbers h3").first
        assert "emulated phone" in first.inner_text().lower()
        assert "synthetic weights" in first.inner_text().lower()
        for timeline in page.locator(".timeline").all():
            assert "synthetic weights" in timeline.locator("h3").inner_text().lower()
        for figure in page.locator("figure:has(svg)").all():
            assert "SYNTHETIC WEIGHTS" in (figure.locator("svg").text_content() or "")


def test_the_theme_can_be_switched_and_is_kept(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, seen):
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        button = page.locator("#theme")
        assert button.get_attribute("aria-label") == "Switch to the dark theme"
        button.click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
        assert ink == page.evaluate("getComputedStyle(document.body).color")
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert seen.messages == []


def test_print_is_light_and_leaves_out_what_no_paper_holds(
    browser: Browser, page_file: Path, screenshots: Path
) -> None:
    with opened(browser, page_file, scheme="dark") as (page, seen):
        (screenshots / "report.pdf").write_bytes(page.pdf(prefer_css_page_size=True))
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 688, "height": 1016})
        page.screenshot(path=screenshots / "report-print.png", full_page=True)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible()
        assert not page.locator("#values").is_visible()
        assert page.locator(".headline").first.is_visible()
        assert page.locator("figure.static svg").first.is_visible()
        assert not page.locator(".live").first.is_visible()
        wide = page.evaluate(
            "[...document.querySelectorAll('.headline, .ledger, .battery, .manuscript, figure')]"
            ".map(e => Math.round(e.getBoundingClientRect().right)).filter(right => right > 688)"
        )
        assert wide == []
        assert seen.messages == []
    assert (screenshots / "report.pdf").read_bytes().count(b"/Type /Page\n") >= 3
