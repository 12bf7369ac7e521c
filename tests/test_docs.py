"""README and documentation: links, commands, tables and generated pages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from instil import catalogue
from instil.catalogue.signatures import parameters

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
SHORT = ["train.epochs=1", "seeds=[0]", "baselines=[]"]


def command(*words: str, folder: Path) -> str:
    """Standard output of an ``instil`` command that must succeed."""
    process = subprocess.run(
        [sys.executable, "-c", "from instil.cli import main; main()", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},  # so that tables do not break names
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The module ``docs/generate.py``, imported as the MkDocs hook does."""
    sys.path.insert(0, str(DOCS))
    try:
        import generate
    finally:
        sys.path.remove(str(DOCS))
    return generate


@pytest.fixture(scope="module")
def generated(generator: ModuleType) -> dict[str, str]:
    pages: dict[str, str] = generator.pages()
    return pages


def test_the_readme_is_short_and_ci_runs_its_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 120
    assert "pip install '.[export]' && instil run\n" in readme
    assert "pip install '.[test]' && pytest\n" in readme
    script = (ROOT / ".ci" / "run").read_text()
    assert "'.[test]'\n" in script
    assert "\npytest " in script


def test_every_method_has_a_page(generated: dict[str, str]) -> None:
    for kind in catalogue.kinds():
        prefix = "" if kind == "objective" else f"{kind}_"
        for name in catalogue.names(kind):
            page = generated[f"methods/{prefix}{name}.md"]
            assert page.startswith(f"# {name}\n")
            assert f"::: {catalogue.describe(kind, name)['defined']}\n" in page
            assert f"](methods/{prefix}{name}.md)" in generated["methods.md"]


def test_a_method_page_shows_the_range_of_a_search(generated: dict[str, str]) -> None:
    page = generated["methods/kd.md"]
    assert "| option | type | default | description | search |" in page
    row = next(line for line in page.splitlines() if line.startswith("| `temperature` |"))
    assert row.endswith("| 0.5 to 8, log |")
    # A baseline is never searched.
    assert "| search |" not in generated["methods/baseline_alone.md"]


def test_a_method_page_shows_the_card(generated: dict[str, str]) -> None:
    card = catalogue.describe("objective", "dkd")
    page = generated["methods/dkd.md"]
    for part in (card["use"], card["pitfalls"], card["deviations"], card["equation"]):
        assert part.replace("``", "`") in page, part
    assert [f"| `{option['name']}` |" in page for option in card["options"]] == [True] * 4
    assert "::: instil.objectives.logits.dkd.dkd_loss\n" in page
    weight = "| published weight | 30000 (RepDistiller, CIFAR-100, batches of 64) |"
    assert weight in generated["methods/pkt.md"]


def test_every_object_is_documented_once(generated: dict[str, str]) -> None:
    directives = re.findall(r"^::: (.+)$", "\n".join(generated.values()), re.MULTILINE)
    assert len(directives) == len(set(directives))
    alias, function = "deit_soft", "instil.objectives.logits.kd.kd_loss"
    assert f"[`{function}`][{function}]" in generated[f"methods/{alias}.md"]


def test_generated_pages_are_not_committed(generated: dict[str, str]) -> None:
    assert [path for path in generated if (DOCS / path).exists()] == []


def test_recipe_keys_have_every_section(generated: dict[str, str]) -> None:
    headings = re.findall(r"^## (.+)$", generated["recipe_keys.md"], re.MULTILINE)
    for section in ("data.augment", "student", "objectives.<name>", "train.optimizer"):
        assert any(f"`{section}`" in heading for heading in headings), section
    page = generated["recipe_keys.md"]
    assert page.count("| `type` | str | the key of the section |") == 2  # objectives and metrics
    assert "| `type` | str | required | Name in the catalogue. |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_hand_written_pages_lead_somewhere(page: Path, generated: dict[str, str]) -> None:
    """``mkdocs build`` checks the links of the site; this also covers the pages outside of it."""
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    targets = [page.parent / link for link in links if not link.startswith("http")]
    created = {(DOCS / path).resolve() for path in generated}
    missing = [path for path in targets if not path.exists() and path.resolve() not in created]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_names_the_machine_it_was_written_on(page: Path) -> None:
    assert re.findall(r"/work\b|\.\./shared|/tmp/", page.read_text()) == []


def test_links_of_methods_are_made_outside_of_code_only(generator: ModuleType) -> None:
    text = "Use `kd` or `depth`.\n\n```yaml\nkd: `kd`\n```\n\nThen `dkd`."
    expected = (
        "Use [kd](methods/kd.md) or `depth`.\n\n```yaml\nkd: `kd`\n```\n\nThen "
        "[dkd](methods/dkd.md)."
    )
    assert generator.link_methods(text) == expected


@pytest.mark.parametrize("name", ["signals.md", "coming_from.md"])
def test_option_tables_name_methods_and_options_that_exist(name: str) -> None:
    """Each ``method: {option, ...}`` in the text of the page."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / name).read_text(), flags=re.DOTALL | re.MULTILINE)
    options = re.findall(r"`(\w+): \{([^}`]*)\}`", text)
    methods = [(method, values) for method, values in options if method in _objectives()]
    assert methods
    for method, values in methods:
        names = set(re.findall(r"(?:^|, )(\w+)", values))
        assert names <= set(parameters(catalogue.find("objective", method))), (method, values)


def test_the_table_of_default_baselines_is_that_of_the_tasks() -> None:
    text = (DOCS / "recipe.md").read_text().partition("| task | baselines |")[2]
    table = re.findall(r"^\| (.+) \| (.+) \|$", text.split("\n\n")[0], re.MULTILINE)
    named = {
        task: re.findall(r"\w+", baselines)
        for tasks, baselines in table
        for task in re.findall(r"`(\w+)`", tasks)
    }
    for name in catalogue.names("task"):
        task = catalogue.find("task", name)
        for kind in task.kinds:
            one_class = ["alone", "label_smoothing", "pseudo_labels"]
            expected = ["alone"]
            if name.endswith("classification"):
                expected = one_class if kind == "single" else ["alone", "pseudo_labels"]
            assert list(task.baselines.get(kind, ("alone",))) == named.get(name, expected), name


def _objectives() -> set[str]:
    return set(catalogue.names("objective"))


def test_the_table_of_commands_is_complete() -> None:
    from typer.main import get_command

    from instil.cli import app

    names = re.findall(r"^\| `instil (\w+)", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_commands_and_files_of_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of the page work on a run folder, which has the files that the page lists."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    command("run", *SHORT, "teacher_train.epochs=1", "--out", "out", folder=tmp_path)
    table = (DOCS / "cli.md").read_text().partition("## The run folder")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    files = re.findall(r"`([\w.]+/?)`", "\n".join(cells))
    assert len(files) >= 7
    assert [name for name in files if not (tmp_path / "out" / name).exists()] == []
    command("export", "out", "--int8", folder=tmp_path)
    command("report", "out", folder=tmp_path)
    command("run", "out/recipe.yaml", "--out", "again", folder=tmp_path)
    first, second = (
        json.loads((tmp_path / run / "result.json").read_text())["distilled"]
        for run in ("out", "again")
    )
    assert first == second


@pytest.mark.slow
def test_a_recipe_loads_the_example_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    example = (ROOT / "examples" / "own_method.py").read_text()
    (tmp_path / "own_method.py").write_text(example)
    (tmp_path / "my.yaml").write_text(
        "imports: [own_method]\ndata: {name: digits, num_labeled: 100}\n"
        "teacher: cnn\nstudent: mlp\n"
        "objectives: {cross_entropy: {}, jensen_shannon: {temperature: 2}}\n"
    )
    assert "jensen_shannon" not in command("methods", folder=tmp_path)
    command("run", "my.yaml", *SHORT, "export=false", "--out", "out", folder=tmp_path)
    assert "jensen_shannon" in (tmp_path / "out" / "metrics.jsonl").read_text()
