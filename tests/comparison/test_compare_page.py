"""Comparison page: content, escaping, and sorting and filters in a browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from instil.comparison.compare import compare
from tests.comparison.folders import write_run, write_search

CHROMIUM = next(
    (path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Return run folders of three settings, and a search."""
    folders = [write_run(tmp_path / name, data=name) for name in ("one", "two", "three")]
    folders.append(
        write_run(tmp_path / "fitnet", (0.85, 0.86, 0.87), data="one", objective="fitnet")
    )
    folders.append(write_search(tmp_path / "search", {"dkd": [0.95, 0.96]}, data="two"))
    return folders


def test_the_page_has_tables_plots_statistics_and_links(runs: list[Path], tmp_path: Path) -> None:
    page = compare(runs).write(tmp_path / "out" / "compare.html").read_text()
    assert page.count('<section class="setting"') == 3
    for key in (
        "scores-0",
        "curves-1",
        "latency-2",
        "num_bytes-0",
        "parameters-0",
        "ranks",
        "profile",
    ):
        assert f'<figure class="{key}">' in page
    assert 'href="../fitnet/recipe.yaml"' in page
    assert 'href="../search/best.yaml"' in page
    assert "4 runs and 1 search" in page
    assert 'data-source="features"' in page
    assert "the results have 2 sets of seeds" in page
    assert not re.search(r"\$\w", page.partition("</style>")[2])


def test_texts_are_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", data="<script>alert(1)</script>")
    folder = run.rename(tmp_path / 'a"b<c')
    page = compare([folder]).write(tmp_path / "compare.html").read_text()
    assert "<script>alert" not in page
    assert 'a"b<c' not in page
    assert "a%22b%3Cc/recipe.yaml" in page


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
def test_columns_sort_and_filters_hide_rows(runs: list[Path], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = compare(runs).write(tmp_path / "compare.html")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(path.as_uri())
        first = page.locator("#setting-0 tbody tr th")
        title = page.locator("#setting-0 thead button", has_text="Test accuracy")
        title.click()
        assert first.first.inner_text() == "Teacher"
        title.click()
        assert first.first.inner_text() == "Student alone"
        page.locator("select[name=source]").select_option("features")
        assert page.locator("section.setting:visible").count() == 1
        assert page.locator("#setting-0 tbody tr:visible").count() == 1
        overflow = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        browser.close()
    assert not overflow
    assert errors == []
