"""The page in a browser: no errors, complete plots, no requests, no overflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instil.report.page import write_report
from tests.report.sample import change, make_run

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)
if CHROMIUM is None:
    pytest.skip("no chromium on the PATH", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow
PLOTS = 7
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=[*OPTIONS, "--disable-sync"]
        )
        yield browser
        browser.close()


def visit(
    browser: Any, page_file: Path, width: int, scheme: str = "light", interactive: bool = False
) -> tuple[Any, list[str], list[str]]:
    """Return the open page, its errors, and its requests for other files."""
    wrong: list[str] = []
    requests: list[str] = []
    page = browser.new_context(
        viewport={"width": width, "height": 850}, color_scheme=scheme
    ).new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda message: (
            wrong.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    if interactive:
        until(
            page,
            "document.querySelectorAll('.js-plotly-plot').length === "
            "document.querySelectorAll('.plot').length",
        )
    return (
        page,
        wrong,
        [
            url
            for url in requests
            if url != page_file.as_uri() and not url.startswith(("data:", "blob:"))
        ],
    )


def until(page: Any, true: str) -> None:
    """Wait in a loop, because the policy of the page forbids that of playwright."""
    for _ in range(100):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {true}")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("report") / "run"))


@pytest.fixture(scope="module")
def interactive_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("interactive") / "run")
    return write_report(run, interactive=True)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_the_page_works(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    page, wrong, requests = visit(browser, page_file, width, scheme)
    assert not wrong
    assert not requests
    shown = (
        "[...document.querySelectorAll('.plot svg')].filter(s => "
        "s.getBoundingClientRect().width > 0)"
    )
    assert page.evaluate(f"{shown}.length") == PLOTS
    marks = f"{shown}.map(s => s.querySelectorAll('polyline, polygon, rect, g g').length)"
    assert min(page.evaluate(marks)) >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = f"{shown}.every(s => s.getBoundingClientRect().right <= innerWidth)"
    assert page.evaluate(inside)
    outside = f"""{shown}.map(s => [...s.querySelectorAll('text')].filter(t => {{
        const box = t.getBoundingClientRect(), frame = s.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1
            || box.bottom > frame.bottom + 1;
    }}).map(t => t.textContent)).flat()"""
    assert page.evaluate(outside) == [], "no label is cut off"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_interactive_page_works(
    browser: Any, interactive_file: Path, width: int, scheme: str
) -> None:
    page, wrong, requests = visit(browser, interactive_file, width, scheme, interactive=True)
    assert not wrong
    assert not requests
    drawn = (
        "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('svg path, "
        "svg rect, svg image').length)"
    )
    assert len(counts := page.evaluate(drawn)) == PLOTS
    assert min(counts) > 3
    marks = (
        "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('.trace, "
        ".heatmaplayer .hm, .points path').length)"
    )
    assert min(page.evaluate(marks)) >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = (
        "[...document.querySelectorAll('.js-plotly-plot')].every(p => "
        "p.querySelector('.main-svg').getBoundingClientRect().right <= innerWidth)"
    )
    assert page.evaluate(inside)


def test_text_can_be_read_in_both_schemes(browser: Any, page_file: Path) -> None:
    for scheme in ("light", "dark"):
        page = visit(browser, page_file, 1280, scheme)[0]
        tick = page.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
        card = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
        assert contrast(tick, card) > 4.5
        for where in ("h1", ".about", "caption", "figcaption", "td small", "nav a", ".verdict"):
            ink = page.evaluate(f"getComputedStyle(document.querySelector('{where}')).color")
            box = ".verdict" if where == ".verdict" else "body"
            back = page.evaluate(
                f"getComputedStyle(document.querySelector('{box}')).backgroundColor"
            )
            assert contrast(ink, back) > 4.5, (scheme, where)


def test_the_scheme_can_change_while_the_page_is_open(browser: Any, interactive_file: Path) -> None:
    page, wrong, _ = visit(browser, interactive_file, 1280, interactive=True)
    fill = "getComputedStyle(document.querySelector('.xtick text')).fill"
    before = page.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    until(page, f"{fill} !== '{before}'")
    assert not wrong


def test_hostile_names_and_long_ones_do_no_harm(browser: Any, tmp_path: Path) -> None:
    names = [
        "</script><script>document.title='owned'</script>",
        "<img src=x onerror=\"document.title='owned'\">",
        "a name that goes on and on " * 4,
        "x" * 90,
    ]
    run = make_run(tmp_path / "run", classes=names)
    change(run, lambda result: result.update(warnings=["x" * 300, names[0]], scheme=names[1]))
    page, wrong, requests = visit(browser, write_report(run), 390)
    assert not wrong
    assert not requests
    assert "owned" not in page.title()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_poor_run_still_makes_a_page(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", seeds=1)
    (run / "metrics.jsonl").write_text("", "utf-8")
    change(
        run,
        lambda result: [result.pop(key) for key in ("export", "details", "gain", "gains", "cost")],
    )
    page, wrong, _ = visit(browser, write_report(run), 390)
    assert not wrong
    assert page.evaluate("document.querySelectorAll('.plot').length") == 0
    assert page.evaluate("document.querySelectorAll('.absent').length") == PLOTS


def contrast(one: str, other: str) -> float:
    """Return the WCAG 2 contrast ratio of two CSS colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
