"""Command line: its output on both streams and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from instil.cli import app, main, methods_table
from instil.objectives.logits.kd import KD
from instil.recipe.packaged import benchmark_recipes, packaged_recipes
from instil.recipe.sections import Recipe


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Path | None, Path | None]]:
    """Replace the run of a recipe by a stub that records its arguments."""
    calls: list[tuple[Recipe, Path | None, Path | None]] = []
    stub = ModuleType("instil.plan.run")

    def run(recipe: Recipe, out: Path | None, resume: Path | None, *_: Any) -> Path:
        calls.append((recipe, out, resume))
        folder = out or resume or Path()
        folder.mkdir(parents=True, exist_ok=True)
        data = {"name": "digits", "train": 10, "labelled": 10, "test": 5}
        (folder / "result.json").write_text(
            json.dumps(
                {"data": data, "seeds": [0], "headline": "accuracy", "warnings": ["only a stub"]}
            )
        )
        return folder

    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "instil.plan.run", stub)
    return calls


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    stub = ModuleType("instil.plan.run")

    def run(*_: Any) -> Path:
        raise error

    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "instil.plan.run", stub)


# --- arguments


def test_run_takes_digits_where_no_recipe_is_named(
    capsys: pytest.CaptureFixture[str], runs: list[Any], tmp_path: Path
) -> None:
    code, out, _ = called(
        capsys, "run", "train.epochs=5", "seeds=[0]", "--out", str(tmp_path / "out")
    )
    assert code == 0
    assert "Warning: only a stub." in out
    recipe, out, resume = runs[0]
    assert (recipe.name, recipe.train.epochs, recipe.seeds) == ("digits", 5, [0])
    assert (out, resume) == (tmp_path / "out", None)


def test_run_takes_a_file_and_changes(
    capsys: pytest.CaptureFixture[str],
    runs: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.yaml").write_text(
        "data: {name: digits}\nstudent: networks:mlp\nobjectives: {cross_entropy: }\n"
    )
    assert called(capsys, "run", "a=b.yaml", "data.num_labeled=7")[0] == 0
    recipe, out, _ = runs[0]
    assert (recipe.name, recipe.data.num_labeled) == ("a=b", 7)
    assert re.fullmatch(r"runs/a=b-\d{8}-\d{6}", out.as_posix())


def test_resume_reads_the_recipe_of_the_run(
    capsys: pytest.CaptureFixture[str], runs: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "name: mine\ndata: {name: digits}\nstudent: networks:mlp\nobjectives: {cross_entropy: }\n"
    )
    assert called(capsys, "run", "--resume", str(tmp_path))[0] == 0
    recipe, out, resume = runs[0]
    assert (recipe.name, out, resume) == ("mine", None, tmp_path)


# --- errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "digit"], "Error: No recipe named 'digit', and no such file. `instil recipes`"),
        (["run", "none/such.yaml"], "Error: no such recipe: none/such.yaml"),
        (
            ["run", "digits", "objectives.dkd={alfa: 1}"],
            "Error: objectives.dkd.alfa: unknown option. DKD has alpha, beta, temperature",
        ),
        (
            ["run", "digits", "seeds=[a]", "train.clip=x"],
            "Error: 2 problems\n  train.clip: a number was expected, not 'x'\n  seeds.0: ",
        ),
        (
            ["run", "digits", "mnist"],
            "Error: RECIPE: several recipes. Expected one, got digits and mnist",
        ),
        (["run", "classification/kdd"], "Error: no such recipe: classification/kdd"),
        (["init", "kdd"], "Error: No recipe named 'kdd', and no such file. `instil recipes`"),
        (["methods", "dkdd"], "Error: No method named 'dkdd'. Did you mean dkd"),
        (
            ["methods", "--kind", "loss"],
            "Error: No kind of method is named 'loss'. Expected one of objective, weighting, "
            "balance, scheme, teacher, task",
        ),
        (
            ["report", "no/such/run"],
            "Error: RUN: no such folder. Expected a run folder, got no/such/run",
        ),
        (["export", "."], "Error: RUN: . is not a run folder. Expected a folder with recipe.yaml"),
        (["export"], "Error: Missing argument"),
        (["methods", "--jso"], "Error: No such option: --jso"),
        (["metods"], "Error: No such command 'metods'"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    runs: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, *words)
    assert err.startswith(message)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert runs == []
    assert list(tmp_path.iterdir()) == []


def test_typos_are_answered_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "methods" in called(capsys, "metods")[2]
    assert "--json" in called(capsys, "methods", "--jso")[2]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("the images folder is empty"), 2, "Error: the images folder is empty"),
        (
            ImportError('timm is missing; pip install "instil[vision]"'),
            2,
            'Error: timm is missing; pip install "instil[vision]"',
        ),
        (
            FileNotFoundError(2, "No such file or directory", "a.pt"),
            2,
            "Error: No such file or directory: a.pt",
        ),
        (RuntimeError("the loss is not finite"), 1, "Error: the loss is not finite"),
        (
            OSError(28, "No space left on device", "x/recipe.yaml"),
            1,
            "Error: No space left on device: x/recipe.yaml",
        ),
        (FloatingPointError("NaN"), 1, "Error: NaN"),
        (
            TypeError("unexpected"),
            1,
            "Error: TypeError: unexpected (unexpected error; --debug shows the traceback)",
        ),
    ],
)
def test_a_failure_of_the_run(
    error: Exception,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    failing(monkeypatch, error)
    ended, out, err = called(capsys, "run")
    assert (ended, out, err.strip()) == (code, "", message)
    with pytest.raises(type(error)):
        main(["run", "--debug"])


def test_an_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    code, _, err = called(capsys, "run", "--out", str(tmp_path / "here"))
    assert (code, err) == (130, "\nStopped. Nothing was written.\n")
    (tmp_path / "recipe.yaml").touch()
    code, _, err = called(capsys, "run", "--out", str(tmp_path))
    assert code == 130
    assert f"instil run --resume {tmp_path}\n" in err
    assert "Traceback" not in err


# --- output


def test_methods_as_json_is_the_whole_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "methods", "--json")
    assert (code, err) == (0, "")
    methods = json.loads(out)
    kinds = {"objective", "weighting", "balance", "scheme", "teacher", "task", "baseline", "metric"}
    assert kinds == {method["kind"] for method in methods}
    keys = {"name", "kind", "source", "algorithms", "tasks", "couples", "options", "paper"}
    assert all(keys <= set(method) for method in methods)
    kd = json.loads(called(capsys, "methods", "kd", "--json")[1])
    assert [one["name"] for one in kd] == ["kd"]
    assert kd[0]["options"][0] | {"description": ""} == {
        "name": "temperature",
        "type": "float > 0",
        "default": KD().temperature,
        "description": "",
    }


def test_methods_as_a_list_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = called(capsys, "methods")
    assert code == 0
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "objectives on labels"
    for heading in ("objectives on relations", "schemes, online distillation", "teachers", "tasks"):
        assert heading in lines
    (kd,) = [line for line in lines if line.startswith("kd ")]
    assert kd.split("  ", 1)[1].strip().startswith("Knowledge distillation: match the teacher's")
    names = {method["name"] for method in methods_table.select()}
    first_words = {line.split()[0] for line in lines if line}
    assert names <= first_words, "every method begins a line"
    assert not [line for line in lines if 0 < len(line.split(" ")[-1]) < 4 and " " not in line]


def test_a_method_as_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "methods", "dkd")
    assert code == 0
    for word in (
        "Decoupled Knowledge Distillation",
        "arxiv.org/abs/2203.08679",
        "temperature",
        "float > 0",
        "dkd_loss",
        "objectives: {dkd: {alpha: 1.0",
    ):
        assert word in out
    assert "(N" in out or "(..., C)" in out, "shapes"


def test_a_card_shows_the_published_weight(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    out = called(capsys, "methods", "pkt")[1]
    assert "published weight: 30000 (RepDistiller, CIFAR-100, batches of 64)\n" in out
    (pkt,) = json.loads(called(capsys, "methods", "pkt", "--json")[1])
    assert pkt["published_weight"] == 30000
    (method,) = json.loads(called(capsys, "methods", "darkrank", "--json")[1])
    assert (method["published_weight"], method["weight_setting"]) == (None, "")
    assert "published weight" not in called(capsys, "methods", "darkrank")[1]


def test_doctor_as_json_keeps_stdout_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = ModuleType("instil.plan.doctor")

    def doctor(recipe: Recipe) -> dict[str, Any]:
        print("examining")  # as code of the user may
        return {"student": recipe.student.model}

    stub.doctor = doctor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "instil.plan.doctor", stub)
    code, out, err = called(capsys, "doctor", "digits", "--json")
    assert (code, json.loads(out), err) == (0, {"student": "networks:cnn"}, "examining\n")


def test_the_command_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: instil [OPTIONS] COMMAND")


def test_doctor_without_a_recipe_examines_the_digits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = ModuleType("instil.plan.doctor")
    stub.doctor = lambda recipe: {"recipe": recipe.name}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "instil.plan.doctor", stub)
    code, out, _ = called(capsys, "doctor", "--json")
    assert (code, json.loads(out)) == (0, {"recipe": "digits"})


@pytest.mark.parametrize("name", ["kd", "classification/kd"])
def test_a_shipped_recipe_runs_by_its_name_from_anywhere(
    name: str,
    capsys: pytest.CaptureFixture[str],
    runs: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called(capsys, "run", name, "train.epochs=3")[0] == 0
    recipe, out, _ = runs[0]
    assert (recipe.name, recipe.folder, recipe.train.epochs) == ("kd", ".", 3)
    assert out.name.startswith("kd-")


def test_the_list_of_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "recipes", "--json")
    entries = {entry["name"]: entry["idea"] for entry in json.loads(out)}
    assert code == 0
    assert set(entries) == set(packaged_recipes()) | set(benchmark_recipes())
    assert all(entries.values()), "every recipe has a summary"
    listed = called(capsys, "recipes")[1]
    assert all(name.rpartition("/")[2] in listed for name in entries)


def test_init_copies_a_recipe_and_overwrites_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = called(capsys, "init", "dkd")
    assert code == 0
    assert "instil doctor dkd.yaml" in out
    assert Path("dkd.yaml").read_text() == packaged_recipes()["classification/dkd"].read_text()
    code, _, err = called(capsys, "init", "kd", "--out", "dkd.yaml")
    assert code == 2
    assert err.startswith("Error: --out: dkd.yaml exists already")


def test_help_names_the_commands() -> None:
    answer = CliRunner().invoke(app, ["--help"])
    assert answer.exit_code == 0
    for command in ("run", "methods", "doctor", "export", "report"):
        assert f"  {command} " in answer.output
    assert CliRunner().invoke(app, ["--version"]).output.startswith("instil ")


@pytest.mark.parametrize("action", ["import instil", "main(['--help'])"])
def test_help_and_import_load_no_torch(action: str) -> None:
    code = (
        f"import sys\nfrom instil.cli import main\ntry: {action}\nfinally: print('torch' in "
        "sys.modules, 'pydantic' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "False False"


def test_plan_lists_jobs_and_what_is_cached(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path))
    words = ("plan", "digits", "seeds=[0]", "train.epochs=1", "baselines=[alone]")
    code, out, _ = called(capsys, *words, "--json")
    plan = json.loads(out)
    assert code == 0
    assert [job["name"] for job in plan["jobs"]] == [
        "teacher",
        "evaluate/teacher",
        "student/alone/seed-0",
        "student/distilled/seed-0",
        "export",
        "report",
    ]
    assert not any(job["done"] for job in plan["jobs"])
    assert plan["seconds"] == pytest.approx(sum(job.get("seconds", 0) for job in plan["jobs"]))
    code, out, _ = called(capsys, *words)
    assert code == 0
    assert "3 trainings left" in out


def test_the_option_kind_names_every_kind() -> None:
    from instil import catalogue

    text = CliRunner().invoke(app, ["methods", "--help"], env={"COLUMNS": "200"}).output
    assert [kind for kind in (*catalogue.kinds(), "data") if kind not in text] == []
