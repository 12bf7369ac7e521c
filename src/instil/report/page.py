"""Report of a run folder as one static page: result, cost, evidence and conditions."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path

from instil.files.atomic import atomic
from instil.report.continuations import continuations
from instil.report.cost_table import cost_table
from instil.report.curves import loss_shares_plot, metric_plot
from instil.report.figures import Figures, page_template
from instil.report.gain_plot import gain_plot
from instil.report.measurement import measurement_terms
from instil.report.mistakes import class_accuracy_table, mistake_examples
from instil.report.opening import opening
from instil.report.quality import calibration_plot, confusion_plot
from instil.report.record import Record
from instil.report.result_tables import arms_table, seeds_table
from instil.report.run_files import read_run
from instil.report.sample_grids import sample_grids
from instil.report.speed_quality import speed_quality_plot
from instil.report.stages_table import stages_table
from instil.report.tables import environment_terms, term_list
from instil.report.trust import trust_checks

MARKS = {"good": "Supports the result", "open": "Caution"}
FILES = {
    "student.safetensors": "the student’s weights",
    "student.onnx": "the student for ONNX runtimes",
    "student.int8.onnx": "the student with 8-bit weights, for ONNX runtimes",
    "student.gguf": "the student for llama.cpp",
    "recipe.yaml": "the recipe of the run",
    "result.json": "all numbers of this page",
    "metrics.jsonl": "every record of the trainings",
    "environment.json": "versions and hardware",
}


def write_report(run: str | Path, interactive: bool = False, status: str | None = None) -> Path:
    """Write ``report.html`` into a run folder.

    The page is made from the files of the folder only and needs no network.

    Args:
        run: run folder.
        interactive: draw the plots with plotly, which adds 5 MB to the page; by default they are
            pictures inside the page.
        status: status of the run, for a caller that writes it into ``result.json`` only after the
            page. None: the status in ``result.json``.

    Returns:
        Path of the page.

    Raises:
        ValueError: if ``run`` is not a run folder or its result cannot be read. Other missing
            files are named on the page.
    """
    record = read_run(run)
    if status is not None:
        record.result["status"] = status
    page = render(record, interactive)
    with atomic(record.folder / "report.html") as temporary:
        temporary.write_text(page, "utf-8")
    return record.folder / "report.html"


def render(record: Record, interactive: bool = False) -> str:
    """Return the whole page as HTML.

    Args:
        record: run.
        interactive: draw the plots with plotly.
    """
    figures = Figures(interactive)
    # The sections add their plots to the figures, so the scripts come last.
    parts = {
        **opening(record),
        **_result(record, figures),
        **_cost(record, figures),
        **_evidence(record, figures),
        **_conditions(record),
    }
    return page_template("page.html").substitute(
        parts,
        scripts=figures.scripts(),
        script_policy="'unsafe-inline'" if interactive else "'none'",
    )


def _result(record: Record, figures: Figures) -> dict[str, str]:
    curves = metric_plot(record, record.metric, "curves", "Learning curves")
    return {
        "arms": arms_table(record) + stages_table(record),
        "gains": figures.add(gain_plot(record)),
        "curves": figures.add(curves),
        "continuations": continuations(record) + sample_grids(record),
    }


def _cost(record: Record, figures: Figures) -> dict[str, str]:
    note = ""
    if record.get("exports") is False:
        note = "<p>Students of this task cannot be exported to ONNX.</p>"
    elif not record.get("export", "onnx"):
        note = (
            "<p>The student was not exported to ONNX. <code>instil export</code> exports and "
            "measures it.</p>"
        )
    return {
        "cost": cost_table(record) + note,
        "speed_quality": figures.add(speed_quality_plot(record)),
    }


def _evidence(record: Record, figures: Figures) -> dict[str, str]:
    agreement = metric_plot(record, "agreement", "agreement", "Agreement with the teacher")
    return {
        "checks": f'<ul class="checks">{"".join(_checks(record))}</ul>',
        "seeds": seeds_table(record),
        "calibration": figures.add(calibration_plot(record)),
        "shares": figures.add(loss_shares_plot(record)),
        "agreement": figures.add(agreement),
        "confusion": figures.add(confusion_plot(record)),
        "mistakes": mistake_examples(record),
        "by_class": class_accuracy_table(record),
    }


def _checks(record: Record) -> list[str]:
    items = []
    for tone, sentence in trust_checks(record):
        mark = f'<span class="mark" role="img" aria-label="{MARKS[tone]}"></span>'
        items.append(f'<li class="{tone}">{mark}{escape(sentence)}</li>')
    return items


def _conditions(record: Record) -> dict[str, str]:
    recipe = "<p>The recipe is missing from the run folder.</p>"
    if record.recipe:
        recipe = f"<pre tabindex=0><code>{escape(record.recipe)}</code></pre>"
    return {
        "files": _files(record),
        "measured": term_list([*measurement_terms(record), *environment_terms(record)]),
        "pictures": _surrogate_images(record),
        "recipe": recipe,
    }


def _files(record: Record) -> str:
    """Links to files of the run folder."""
    items = [
        f'<li><a href="{name}">{name}</a>, {use}</li>'
        for name, use in FILES.items()
        if (record.folder / name).is_file()
    ]
    return f"<h3>Files of this run</h3><ul>{''.join(items)}</ul>" if items else ""


def _surrogate_images(record: Record) -> str:
    """Images that replaced the training data of the exported student."""
    if not record.surrogate_images:
        return ""
    source = f"data:image/png;base64,{b64encode(record.surrogate_images).decode()}"
    return (
        "<figure><h3>Images that the student was trained on</h3>"
        f'<img src="{source}" alt="Generated or surrogate images in rows of eight">'
        "<figcaption>Some of the images that the exported student was trained on. It saw none of "
        "the training images.</figcaption></figure>"
    )
