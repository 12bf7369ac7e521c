import errno
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from instil.report.figures import script_json
from instil.report.page import render, write_report
from instil.report.run_files import read_run
from tests.report.sample import change, make_run

HOSTILE = [
    '</script><script>document.title="owned"</script>',
    '<img src=x onerror="alert(1)">',
    "a & b",
    "<!--",
    "%{x} $headline",
]


PLOTS = 7
VOID = ("meta", "link", "br", "img")


class Outline(HTMLParser):
    """Parser of open tags, headings, and text outside scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not set(self.open) & {"script", "style"}:
            self.words += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def page_of(run: Path) -> str:
    return write_report(run).read_text("utf-8")


def interactive_page_of(run: Path) -> str:
    """Return the interactive page without the plotly library."""
    from plotly.offline import get_plotlyjs

    page = write_report(run, interactive=True).read_text("utf-8")
    assert page.count(get_plotlyjs()) == 1, "plotly is in the page once"
    return page.replace(get_plotlyjs(), "")


def plots_of(run: Path) -> str:
    """Return the JSON of the plots of the interactive page."""
    page = interactive_page_of(run)
    assert len(re.findall("<script", page)) == 3
    (plots,) = re.findall(r'id="plots">(.*?)</script>', page)
    return str(plots)


def test_the_page_is_small_and_runs_no_script(run: Path) -> None:
    page = page_of(run)
    assert len(page.encode()) < 300_000
    assert "script-src 'none'" in page
    assert page.count("<svg viewBox") == 2 * PLOTS, "once for a desk, once for a phone"


def test_the_page_is_whole_well_formed_and_accessible(run: Path) -> None:
    page = page_of(run)
    outline = Outline(page)
    assert not outline.open
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("h1") == tags.count("main") == 1
    assert page.partition("<body>")[0].count("<title>") == 1
    assert ("html", {"lang": "en"}) in outline.tags
    assert all("scope" in attrs for tag, attrs in outline.tags if tag == "th")
    frames = [attrs for tag, attrs in outline.tags if attrs.get("class") == "plot"]
    figures = [attrs["class"] for tag, attrs in outline.tags if tag == "figure"]
    assert figures == [
        *("gains", "curves", "speed-quality", "agreement", "shares", "calibration", "confusion"),
    ]
    assert all(frame["role"] == "img" and len(str(frame["aria-label"])) > 40 for frame in frames)
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"]) for tag, attrs in outline.tags if tag == "a"]
    assert all(link[1:] in ids if link[0] == "#" else (run / link).is_file() for link in links)
    assert "result.json" in links
    assert sorted(path.name for path in run.iterdir()) == [
        "environment.json",
        "metrics.jsonl",
        "recipe.yaml",
        "report.html",
        "result.json",
    ]


def test_the_page_refers_to_no_other_place(run: Path) -> None:
    page = page_of(run)
    assert not re.findall(r"https?:|//\w+\.\w", page)
    assert not re.search(r"\b(src|srcset|action)=|url\((?!#)|@import", page)
    assert "default-src 'none'" in page, "and the browser allows no source"


def test_the_headline_contains_the_numbers(run: Path) -> None:
    def set_numbers(result: dict[str, Any]) -> None:
        result["teacher"]["accuracy"] = {"mean": 0.96, "std": None, "values": [0.96]}
        result["distilled"]["accuracy"] = {
            "mean": 0.951,
            "std": 0.0042,
            "values": [0.947, 0.951, 0.955],
        }
        result["gain"] |= {"mean": 0.1234, "interval": [0.109, 0.137], "significant": True}
        result["gains"]["pseudo_labels"] |= {
            "mean": -0.004,
            "interval": [-0.02, 0.012],
            "significant": False,
        }

    words = (
        Outline(page_of(change(run, set_numbers))).words.replace("\u202f", " ").replace("\xa0", " ")
    )
    assert (
        "With 100 of 1 000 labels, the distilled student reaches 95.1 % ± 0.4 accuracy, 12.3 "
        "points above the same student trained alone "
        "(95 % interval 10.9 to 13.7, 3 paired seeds); it keeps 99 % of the teacher’s accuracy "
        "with 1/20 of its parameters." in words
    )
    assert (
        "It is 0.4 points below pseudo-labels (95 % interval −2.0 to 1.2, 3 paired seeds), "
        "which is within the noise." in words
    )
    assert "No better than pseudo-labels" in words
    assert "It worked" not in words
    assert "It is not better than the baseline pseudo-labels." in words
    assert "The ONNX file gives the same logits as PyTorch, to within 5 × 10⁻⁷." in words


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ({"mean": -0.05, "interval": [-0.07, -0.03], "significant": True}, "Worse than alone"),
        ({"mean": 0.01, "interval": [-0.01, 0.03], "significant": False}, "Within noise"),
    ],
)
def test_a_gain_within_noise_or_a_loss_has_no_good_verdict(
    run: Path, gain: dict[str, Any], words: str
) -> None:
    text = Outline(page_of(change(run, lambda result: result["gain"].update(gain)))).words
    assert words in text
    assert "It worked" not in text


def test_names_from_outside_are_text_everywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=HOSTILE)

    def soil(result: dict[str, Any]) -> None:
        result["warnings"] = [HOSTILE[0]]
        result["data"]["name"] = HOSTILE[1]
        result["scheme"] = HOSTILE[1]
        result[HOSTILE[1]] = result["pseudo_labels"]
        result["gains"][HOSTILE[0]] = result["gain"]
        result["objectives"] = {HOSTILE[0]: {}}

    change(run, soil)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        row = {
            "seed": 0,
            "arm": "distilled",
            "stage": 0,
            "epoch": 3,
            "step": 1,
            "losses": {HOSTILE[1]: 1.0},
            "validation": {"accuracy": 0.5},
        }
        file.write(json.dumps(row) + "\n" + json.dumps(row | {"arm": HOSTILE[0]}) + "\n")
    (run / "recipe.yaml").write_text("x: " + HOSTILE[0], "utf-8")
    (run / "environment.json").write_text(
        json.dumps({HOSTILE[0]: {HOSTILE[1]: HOSTILE[0]}}), "utf-8"
    )
    page = page_of(run)
    outline = Outline(page)
    assert not outline.open
    assert "<script" not in page
    assert "<img" not in page
    assert outline.words.count(HOSTILE[0]) >= 4, "shown as it is written"
    plots = json.loads(html.unescape(plots_of(run)))
    confusion = next(plot for plot in plots if plot["key"] == "confusion")
    assert "<" not in json.dumps(confusion["layout"]).replace("<extra>", ""), (
        "plotly reads tags too"
    )


def test_json_in_a_script_cannot_end_it() -> None:
    text = script_json({"</script>": ["<!-- <script>", "a & b", float("nan"), float("inf")]})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"</script>": ["<!-- <script>", "a & b", None, None]}


def _no(*keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(result: dict[str, Any]) -> None:
        for key in keys:
            del result[key]

    return edit


def _generic(result: dict[str, Any]) -> None:
    for arm in ("teacher", "alone", "label_smoothing", "pseudo_labels", "distilled"):
        result[arm] = {"miou": result[arm]["accuracy"]}
    del result["details"], result["classes"], result["export"], result["gains"]


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "no export": (_no("export"), ["was not exported to ONNX"]),
    "no int8": (lambda result: result["export"].pop("int8"), ["Student, ONNX"]),
    "no details": (
        _no("details"),
        ["There is no confusion matrix", "Calibration was not measured"],
    ),
    "no cost": (_no("cost", "export"), ["The cost was not measured.", "Latency was not measured"]),
    "no gain": (_no("gain", "gains", "alone"), ["Nothing to compare", "no interval to draw"]),
    "no distilled": (
        _no("distilled", "gain", "gains", "details"),
        ["This run has no distilled student yet."],
    ),
    "teacher only": (
        _no("distilled", "gain", "gains", "alone", "label_smoothing", "pseudo_labels"),
        ["This run has no distilled student yet."],
    ),
    "running": (
        lambda result: result.update(status="running"),
        ["This run is still running", "Still running"],
    ),
    "interrupted": (
        lambda result: result.update(status="interrupted"),
        ["This run was interrupted", "Interrupted"],
    ),
    "warnings": (
        lambda result: result.update(warnings=["kd was constant for 3 epochs"]),
        ["kd was constant for 3 epochs", "Warnings"],
    ),
    "generic": (_generic, ["mIoU", "the distilled student reaches"]),
    "many classes": (
        lambda result: result["details"]["distilled"].update(
            confusion=[[int(i == j) for j in range(150)] for i in range(150)]
        ),
        ["A confusion matrix of 150 classes is too large to read."],
    ),
    "empty": (lambda result: result.clear(), ["No network has a test result yet."]),
    "wrong types": (
        lambda result: result.update(
            teacher=3,
            alone="x",
            gain=[1],
            gains=[2],
            cost="?",
            details=[],
            export=1,
            seeds=5,
            classes=7,
            warnings=2,
            data=[],
        ),
        ["The distilled student reaches"],
    ),
    "nan": (
        lambda result: result["gain"].update(mean=float("nan"), interval=[float("nan"), 1.0]),
        ["Nothing to compare"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_missing_values_are_named_on_the_page(run: Path, name: str) -> None:
    edit, sentences = BROKEN[name]
    page = page_of(change(run, edit))
    words = Outline(page).words
    for sentence in sentences:
        assert sentence in words
    assert "None" not in words
    assert "nan" not in words
    json.loads(
        plots_of(run),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )


def test_one_seed_has_no_standard_deviation(tmp_path: Path) -> None:
    words = Outline(page_of(make_run(tmp_path / "run", seeds=1))).words
    assert "(one seed, so the noise is unknown)" in words
    assert "One seed only" in words
    assert "It is better than the baseline label smoothing in this one seed." in words
    assert "±" not in words
    assert "It worked" not in words


@pytest.mark.parametrize("missing", ["metrics.jsonl", "environment.json", "recipe.yaml"])
def test_missing_files_are_named(run: Path, missing: str) -> None:
    (run / missing).unlink()
    assert f"{missing} is missing or cannot be read." in Outline(page_of(run)).words


def test_incomplete_lines_and_malformed_rows_are_skipped(run: Path) -> None:
    odd = [
        {"arm": "distilled"},
        {"arm": None, "epoch": "x"},
        {"arm": "distilled", "epoch": 2, "losses": None, "validation": 3},
        {"epoch": 1, "losses": []},
        7,
    ]
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in odd) + '{"seed": 0, "arm": "dist')
    assert "2 lines of metrics.jsonl cannot be read" in Outline(page_of(run)).words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no result\.json.*got a folder with environment\.json"),
        ("{", r"result\.json.* cannot be read"),
        ("[]", "Expected an object .* got a list"),
    ],
)
def test_bad_run_folders_are_one_clear_error(run: Path, content: str | None, message: str) -> None:
    (run / "result.json").unlink()
    if content is not None:
        (run / "result.json").write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message):
        write_report(run)
    with pytest.raises(ValueError, match="is not a folder"):
        write_report(run / "absent")
    assert not (run / "report.html").exists()


def test_a_full_disk_leaves_the_older_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(run)
    before = page.read_text("utf-8")

    def full(self: Path, *args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"the disk is full: .*report\.html"):
        write_report(run)
    assert page.read_text("utf-8") == before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_the_same_folder_gives_the_same_page(run: Path) -> None:
    assert render(read_run(run)) == render(read_run(run))


def test_the_onnx_file_is_drawn_at_the_quality_of_the_seed_it_holds(run: Path) -> None:
    plots = json.loads(plots_of(run))
    points = {
        trace["name"]: trace
        for trace in next(plot for plot in plots if plot["key"] == "speed-quality")["data"]
    }
    result = json.loads((run / "result.json").read_text("utf-8"))
    assert points["Distilled, ONNX"]["y"] == [result["distilled"]["accuracy"]["values"][-1]]
    assert points["Distilled, ONNX"]["x"] == [result["export"]["onnx"]["latency"]["median_ms"]]
    assert points["Distilled student"]["y"] == [result["distilled"]["accuracy"]["mean"]]
    assert points["Distilled, ONNX int8"]["y"] == [result["export"]["int8"]["accuracy"]]


def test_the_price_of_int8_is_measured_on_both_files(run: Path) -> None:
    def as_exported(result: dict[str, Any]) -> None:
        result["export"]["onnx"]["accuracy"] = 0.94
        result["export"]["int8"] = {"file": "student.int8.onnx", "bytes": 9000, "accuracy": 0.915}

    words = Outline(page_of(change(run, as_exported))).words.replace("\u202f", " ")
    assert "8-bit weights and activations cost 2.5 points (91.5 % on the test split)." in words


def test_the_seed_of_an_earlier_version_is_read(run: Path) -> None:
    page = page_of(change(run, lambda result: result.update(exported_seed=1)))
    older = page_of(
        change(run, lambda result: result.update(shipped_seed=result.pop("exported_seed")))
    )
    assert Outline(older).words == Outline(page).words


def test_details_are_those_of_the_exported_seed(run: Path) -> None:
    words = Outline(page_of(change(run, lambda result: result.update(exported_seed=1)))).words
    assert words.count("(seed 1)") == 3, "reliability, confusion and accuracy of each class"
    assert "(seed 0)" not in words
