"""Interactive timelines in a real browser: one cursor for all sensors, by pointer, finger and keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page

from pocketvlm.provenance import read_json, write_json
from tests.browser import opened
from tests.drawn_report import draw_all, render_report
from tests.synthetic_records import write_study

pytestmark = pytest.mark.slow

LARGEST_PAGE = 5_000_000


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an invented study of two devices."""
    study = write_study(tmp_path_factory.mktemp("study") / "results", repeats=3, quantisations=("Q4_0",))
    draw_all(study)
    return render_report(study)


def embedded(page: Page, index: int = 0) -> dict[str, Any]:
    """Return the data of a timeline as the page holds it."""
    text = page.locator("script[type='application/json']").nth(index).text_content() or ""
    found: dict[str, Any] = json.loads(text)
    return found


def cursors(timeline: Locator) -> list[float]:
    """Return where the cursor of each chart of a timeline is."""
    lines = timeline.locator(".cursor").all()
    return [float(line.get_attribute("x1") or "nan") for line in lines]


def values(timeline: Locator) -> list[str]:
    """Return the numbers that are told at the cursor, chart by chart."""
    return timeline.locator(".value").all_inner_texts()


def told(timeline: Locator) -> str:
    """Return what a screen reader says of the cursor."""
    return timeline.locator(".stack").get_attribute("aria-valuetext") or ""


def expected(run: dict[str, Any], ms: float) -> list[float | None]:
    """Return each line's sample that is nearest to a moment, in the order of the charts."""
    return [
        min(zip(line["t"], line["v"], strict=True), key=lambda pair: (abs(pair[0] - ms), pair[0]))[1]
        for lines in run["panels"].values()
        for line in lines
    ]


def same(texts: list[str], numbers: list[float | None]) -> bool:
    """Return whether told values are these numbers, as far as they are told."""
    shown = [float(text.replace("\u2212", "-")) for text in texts]
    return shown == pytest.approx([number for number in numbers if number is not None], rel=6e-3, abs=6e-3)


@pytest.mark.parametrize("width", [390, 1400])
def test_pointing_at_one_chart_reads_all_sensors_at_that_moment(
    browser: Browser, page_file: Path, width: int
) -> None:
    with opened(browser, page_file, width=width) as (page, seen):
        first, second = page.locator(".live").all()
        data = embedded(page)
        run = data["runs"][0]
        assert len(first.locator(".panel").all()) == len(data["panels"]) >= 5
        assert values(first) == [""] * len(values(first))
        chart = first.locator(".panel svg").nth(1)
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + box["height"] / 2)
        at = cursors(first)
        assert len(set(at)) == 1
        assert at[0] == pytest.approx(0.6 * box["width"], abs=1.5)
        end = max(one["phases"][-1][2] for one in data["runs"])
        moment = (at[0] - 46) / (box["width"] - 56) * end
        assert same(values(first), expected(run, moment))
        phase = next(name for name, start, stop in run["phases"] if start <= moment < stop)
        assert data["labels"][phase] in first.locator(".moment").inner_text()
        assert set(cursors(second)) == {-9.0}
        page.mouse.move(1, 1)
        assert set(cursors(first)) == {-9.0}
        assert seen.messages == []
        assert len(seen.requests) == 1


def test_a_finger_reads_a_moment_too(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(page_file.resolve().as_uri())
    timeline = page.locator(".live").first
    timeline.locator(".panel svg").first.tap()
    assert cursors(timeline)[0] > 46
    assert all(values(timeline))
    context.close()


def test_the_keyboard_moves_the_cursor(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, seen):
        timeline = page.locator(".live").first
        run = embedded(page)["runs"][0]
        for _step in range(300):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('role')") == "slider":
                break
        stack = timeline.locator(".stack")
        assert stack.evaluate("one => one === document.activeElement")
        assert stack.evaluate("one => getComputedStyle(one).outlineStyle") != "none"
        assert told(timeline) == "no moment chosen"
        page.keyboard.press("ArrowRight")
        assert told(timeline).startswith("0.00 s, load.")
        for _step in range(4):
            page.keyboard.press("ArrowRight")
        assert told(timeline).startswith("0.40 s, ")
        assert same(values(timeline), expected(run, 400))
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("ArrowLeft")
        assert told(timeline).startswith("1.30 s, ")
        page.keyboard.press("Home")
        page.keyboard.press("PageDown")
        assert f"{run['phases'][1][1] / 1000:.2f} s, text prefill." in told(timeline)
        page.keyboard.press("PageUp")
        page.keyboard.press("ArrowLeft")
        assert told(timeline).startswith("0.00 s")
        page.keyboard.press("End")
        assert stack.get_attribute("aria-valuenow") == stack.get_attribute("aria-valuemax")
        page.keyboard.press("Escape")
        assert told(timeline) == "no moment chosen"
        assert seen.messages == []


def test_another_run_can_be_chosen(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, seen):
        timeline = page.locator(".live").first
        choice = timeline.get_by_role("combobox")
        assert choice.locator("option").count() == 3
        assert choice.locator("option").first.inner_text().endswith("(median)")
        before = timeline.locator("path.line").first.get_attribute("d")
        choice.select_option("1")
        assert timeline.locator("path.line").first.get_attribute("d") != before
        timeline.locator(".stack").focus()
        page.keyboard.press("PageDown")
        page.keyboard.press("PageDown")
        assert same(
            values(timeline), expected(embedded(page)["runs"][1], embedded(page)["runs"][1]["phases"][2][1])
        )
        assert seen.messages == []


def test_charts_follow_the_window_and_the_theme(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as (page, seen):
        chart = page.locator(".live svg").first
        wide = chart.bounding_box()
        page.set_viewport_size({"width": 390, "height": 800})
        page.wait_for_function("document.querySelector('.live svg').getBoundingClientRect().width < 400")
        narrow = chart.bounding_box()
        assert wide is not None
        assert narrow is not None
        assert narrow["width"] < wide["width"]
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        sizes = page.eval_on_selector_all(
            ".live text", "found => found.map(one => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert min(sizes) >= 10
        ink = "getComputedStyle(document.querySelector('.live path.line')).stroke"
        before = page.evaluate(ink)
        page.locator("#theme").click()
        assert page.evaluate(ink) != before
        assert seen.messages == []


def test_without_scripts_the_still_figures_are_there(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.resolve().as_uri())
    assert page.locator("figure.static svg").first.is_visible()
    context.close()


def test_a_huge_answer_and_hostile_names_stay_small_and_text(browser: Browser, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='owned'</script><b>model</b>"
    study = write_study(
        tmp_path / "results",
        repeats=2,
        devices=("local",),
        quantisations=("Q4_0",),
        answer="<i>x</i> " * 110_000,
    )
    cells = read_json(study.cells_json)
    cells["cells"][0]["model"] = hostile
    write_json(study.cells_json, cells)
    draw_all(study)
    page_file = render_report(study)
    assert page_file.stat().st_size < LARGEST_PAGE
    with opened(browser, page_file) as (page, seen):
        assert embedded(page)["name"] == f"local: {hostile} Q4_0"
        assert "owned" not in page.title()
        answer = page.locator(".reply pre").first
        assert answer.inner_text().startswith("<i>x</i> <i>x</i>")
        box = answer.bounding_box()
        assert box is not None
        assert box["height"] < 400
        assert "986000 more characters" in page.locator(".reply").inner_text()
        assert page.locator("main b:text-is('model'), .reply i").count() == 0
        assert seen.dialogs == []
        assert seen.messages == []
        assert len(seen.requests) == 1
