"""Run folder: content after success, failure, stop and a full disk, and resumed runs."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from scipy import stats

from instil import recipe as recipes
from instil.cli import main
from instil.deployment.export import export
from instil.plan import run as experiment
from instil.recipe import to_yaml
from instil.recipe.sections import Recipe
from tests.experiment.small import SMALL, lines, numbers, recipe, result, run_of, timeless_lines

ARMS = ["teacher", "alone", "label_smoothing", "pseudo_labels", "distilled"]
METRICS = {"accuracy", "loss", "ece"}


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete run with an ONNX file."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_of(recipe("export=true"), out)
    return out


# --- content


def test_every_file_is_there_and_nothing_else(whole: Path) -> None:
    files = {path.name for path in whole.iterdir()}
    assert files == {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "student.safetensors",
        "student.onnx",
        "report.html",
        "checkpoint",
    }
    arms = {f"{arm}-{seed}" for arm in ARMS[1:] for seed in (0, 1)}
    names = {path.name for path in (whole / "checkpoint").iterdir()}
    assert {name for name in names if not name.startswith("mistake-")} == {
        *(f"{arm}{suffix}" for arm in arms for suffix in (".json", ".safetensors")),
        *("run.json", "teacher.json", "lock"),
    }


def test_the_resolved_recipe_is_the_one_that_ran(whole: Path) -> None:
    assert recipes.load(whole) == recipe("export=true")
    assert (
        yaml.safe_load((whole / "recipe.yaml").read_text())["objectives"]["kd"]["standardize"]
        is False
    )


def test_the_environment(whole: Path) -> None:
    environment = json.loads((whole / "environment.json").read_text())
    assert {"time", "command", "python", "platform", "versions", "hardware", "seeds", "git"} == set(
        environment
    ) - {"sha256"}
    assert (
        environment["versions"]["torch"] == torch.__version__.split("+")[0]
        or environment["versions"]["torch"] == torch.__version__
    )
    assert environment["hardware"]["threads"] == torch.get_num_threads()
    assert environment["seeds"] == [0, 1]


def test_the_shape_of_the_result(whole: Path) -> None:
    outcome = result(whole)
    assert (outcome["status"], outcome["headline"], outcome["seeds"], outcome["scheme"]) == (
        "complete",
        "accuracy",
        [0, 1],
        "offline",
    )
    for arm in ARMS:
        metrics = METRICS | ({"agreement"} if arm != "teacher" else set())
        assert set(outcome[arm]) == metrics, arm
        for summary in outcome[arm].values():
            assert set(summary) == {"mean", "std", "values"}
            values = summary["values"]
            assert len(values) == (1 if arm == "teacher" else 2)
            assert summary["mean"] == pytest.approx(np.mean(values))
            assert summary["std"] == (
                None if arm == "teacher" else pytest.approx(np.std(values, ddof=1))
            )
        assert all(0 <= value <= 1 for value in outcome[arm]["accuracy"]["values"])
    assert set(outcome["gain"]) == {
        *("mean", "std", "interval", "level", "paired", "p", "significant")
    }
    assert set(outcome["gains"]) == {"label_smoothing", "pseudo_labels"}
    assert set(outcome["cost"]) == {"teacher", "student"}
    for cost in outcome["cost"].values():
        assert set(cost) == {"parameters", "bytes", "latency", "seconds"}
        assert set(cost["latency"]) == {"median_ms", "p90_ms", "batch_size", "threads"}
        assert 0 < cost["latency"]["median_ms"] <= cost["latency"]["p90_ms"]
        assert cost["seconds"] > 0
    assert outcome["cost"]["student"]["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
    assert outcome["cost"]["student"]["bytes"] == 4 * outcome["cost"]["student"]["parameters"]


def test_the_gain_by_other_means(whole: Path) -> None:
    outcome = result(whole)
    distilled, alone = (outcome[arm]["accuracy"]["values"] for arm in ("distilled", "alone"))
    test = stats.ttest_rel(distilled, alone)
    assert outcome["gain"]["mean"] == pytest.approx(np.mean(distilled) - np.mean(alone))
    assert outcome["gain"]["interval"] == pytest.approx(list(test.confidence_interval(0.95)))
    assert outcome["gain"]["significant"] == bool(test.pvalue < 0.05)


def test_metrics_are_one_line_an_epoch_and_arm(whole: Path) -> None:
    rows = [(line["arm"], line["seed"], line["epoch"]) for line in lines(whole)]
    assert len(rows) == len(set(rows))
    assert set(rows) == {("teacher", None, epoch) for epoch in (1, 2)} | {
        (arm, seed, epoch) for arm in ARMS[1:] for seed in (0, 1) for epoch in (1, 2)
    }
    distilled = next(line for line in lines(whole) if line["arm"] == "distilled")
    assert set(distilled["losses"]) == {"student/cross_entropy", "student/kd"}
    assert set(distilled["validation"]) == METRICS | {"agreement"}


def test_the_shipped_student_is_the_seed_that_validates_best(whole: Path) -> None:
    seed = result(whole)["exported_seed"]
    validation = {
        n: json.loads((whole / "checkpoint" / f"distilled-{n}.json").read_text())["validation"][
            "accuracy"
        ]
        for n in (0, 1)
    }
    assert validation[seed] == max(validation.values())
    shipped, own = (
        load_file(whole / "student.safetensors"),
        load_file(whole / "checkpoint" / f"distilled-{seed}.safetensors"),
    )
    assert all(torch.equal(value, own[name]) for name, value in shipped.items())


def test_the_exported_file_scores_as_the_student_does(whole: Path) -> None:
    outcome = result(whole)
    seed = outcome["seeds"].index(outcome["exported_seed"])
    assert outcome["export"]["onnx"]["accuracy"] == pytest.approx(
        outcome["distilled"]["accuracy"]["values"][seed], abs=0.002
    )
    assert outcome["export"]["onnx"]["max_difference"] < 1e-4


def test_export_adds_int8_with_the_accuracy_it_costs(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, "export", str(whole))
    assert (code, err) == (0, "")
    assert "student.int8.onnx" in out
    outcome = result(whole)["export"]
    assert (whole / outcome["int8"]["file"]).stat().st_size == outcome["int8"]["bytes"]
    assert 0 <= outcome["int8"]["accuracy"] <= 1
    assert outcome["int8"]["latency"]["median_ms"] > 0


def test_one_seed_crashes_nothing_and_claims_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(SMALL))
    code, out, err = called(
        capsys, "run", str(tmp_path / "one.yaml"), "seeds=[3]", "--out", str(tmp_path / "run")
    )
    assert (code, err) == (0, "")
    assert "one seed cannot distinguish that from noise" in out
    outcome = result(tmp_path / "run")
    assert outcome["distilled"]["accuracy"]["std"] is None
    assert (
        outcome["gain"]["std"],
        outcome["gain"]["interval"],
        outcome["gain"]["significant"],
    ) == (
        None,
        None,
        False,
    )
    assert (
        "1 seed is too few to distinguish a gain from noise; use 3 or more" in outcome["warnings"]
    )
    assert called(capsys, "report", str(tmp_path / "run"))[0] == 0


def test_without_the_extra_the_run_is_complete_and_names_the_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    outcome = run_of(recipe("export=true", "seeds=[0]", "baselines=[]"), tmp_path / "run")
    assert outcome["status"] == "complete"
    assert any('pip install "instil[export]"' in warning for warning in outcome["warnings"])
    assert not (tmp_path / "run" / "student.onnx").exists()
    assert (
        "pip install &quot;instil[export]&quot;" in (tmp_path / "run" / "report.html").read_text()
    )
    with pytest.raises(ImportError, match=r'pip install "instil\[export\]"'):
        export(tmp_path / "run", int8=True)


# --- valid folders


def test_a_folder_with_another_run_is_left_alone(whole: Path) -> None:
    before = (whole / "result.json").read_bytes()
    with pytest.raises(
        FileExistsError,
        match=r"already holds a run; continue it \(--resume .*\) or use another --out",
    ):
        run_of(recipe(), whole)
    assert (whole / "result.json").read_bytes() == before


def test_a_run_is_not_gone_on_with_by_another_recipe(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ValueError,
        match=r"train\.epochs differs from the recipe of the run in .*\. Expected 2, got 3",
    ):
        run_of(recipe("export=true", "train.epochs=3"), whole, resume=True)
    code, _, err = called(capsys, "run", "--resume", str(whole), "objectives.kd.temperature=1")
    assert (code, err.startswith("Error: objectives.kd.temperature differs")) == (2, True)


def test_seeds_can_be_added(tmp_path: Path) -> None:
    run_of(recipe("seeds=[0]"), tmp_path / "grown")
    grown = run_of(recipe("seeds=[0,1]"), tmp_path / "grown", resume=True)
    assert numbers(grown) == numbers(run_of(recipe(), tmp_path / "at once"))


# --- stopped and resumed


def stop_at(
    monkeypatch: pytest.MonkeyPatch, arm: str, seed: int | None, step: int, error: BaseException
) -> None:
    """Raise during the training of an arm."""
    original = experiment.Runner

    def arms(experiment: Any, folder: Any, on_step: Any) -> Any:
        def bomb(name: str, at: int | None, clock: Any) -> None:
            if (name, at, clock.step) == (arm, seed, step):
                raise error

        return original(experiment, folder, bomb)

    monkeypatch.setattr(experiment, "Runner", arms)


LONG: dict[str, Any] = {
    "data": {"name": "digits", "num_labeled": 100, "batch_size": 250, "augment": {"crop": 1}},
    "train": {"epochs": 4, "optimizer": {"lr": 1e-2}, "checkpoint_every": 2},
}
HINT: dict[str, Any] = {
    "student": {"model": "cnn", "options": {"width": 3}},
    "stages": [
        {"objectives": {"hint": {"type": "fitnet", "pairs": [[1, 1]]}}},
        {"student": "previous"},
    ],
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("undisturbed")
    for name, one in {"plain": recipe(**LONG), "stages": recipe(**LONG, **HINT)}.items():
        run_of(one, base / name)
    return {name: base / name for name in ("plain", "stages")}


@pytest.mark.parametrize(
    ("kind", "arm", "seed", "step"),
    [
        ("plain", "teacher", None, 9),
        ("plain", "alone", 0, 11),
        ("plain", "pseudo_labels", 1, 1),
        ("plain", "distilled", 1, 13),
        ("stages", "distilled", 0, 5),
        ("stages", "distilled", 1, 13),
    ],
)
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    kind: str,
    arm: str,
    seed: int | None,
    step: int,
    undisturbed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = recipe(**LONG, **(HINT if kind == "stages" else {}))
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        stop_at(patch, arm, seed, step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_of(one, tmp_path / "run")
    assert result(tmp_path / "run")["status"] == "interrupted"
    torch.manual_seed(99)
    assert numbers(run_of(one, tmp_path / "run", resume=True)) == numbers(result(undisturbed[kind]))
    for path in (undisturbed[kind] / "checkpoint").glob("*.safetensors"):
        expected, actual = load_file(path), load_file(tmp_path / "run" / "checkpoint" / path.name)
        assert all(torch.equal(value, actual[name]) for name, value in expected.items()), path.name

    def in_order(out: Path) -> list[dict[str, Any]]:
        return sorted(
            timeless_lines(out),
            key=lambda r: (r["arm"], str(r["seed"]), r["stage"], r["step"]),
        )

    assert in_order(tmp_path / "run") == in_order(undisturbed[kind])


def test_a_stop_at_the_second_stage_of_the_second_seed_really_is_one(
    undisturbed: dict[str, Path],
) -> None:
    steps = {
        (line["stage"], line["step"])
        for line in lines(undisturbed["stages"])
        if line["arm"] == "distilled" and line["seed"] == 1
    }
    assert steps == {(stage, step) for stage in (0, 1) for step in (4, 8, 12, 16)}


def test_a_stopped_run_has_a_page_and_names_the_command_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    stop_at(monkeypatch, "distilled", 1, 3, KeyboardInterrupt())
    code, _, err = called(
        capsys, "run", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")
    )
    assert (code, err) == (
        130,
        f"\nStopped. Continue with: instil run --resume {tmp_path / 'run'}\n",
    )
    code, out, _ = called(capsys, "report", str(tmp_path / "run"))
    assert code == 0
    assert "This run was interrupted" in Path(out.strip()).read_text()
    code, _, err = called(capsys, "export", str(tmp_path / "run"))
    assert code == 2
    assert "--resume" in err


def test_a_stop_before_the_first_result_has_a_page_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    stop_at(monkeypatch, "teacher", None, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_of(recipe(), tmp_path / "run")
    assert called(capsys, "report", str(tmp_path / "run"))[0] == 0


# --- failures


def test_a_loss_that_is_not_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    words = [
        "train.optimizer={type: sgd, lr: 1e30}",
        "teacher_train.optimizer={type: sgd, lr: 0.1}",
        "baselines=[]",
    ]
    code, _, err = called(capsys, "run", str(tmp_path / "small.yaml"), *words, "--out", str(out))
    assert code == 1
    assert err.count("\n") == 1
    assert "step 1: loss 'student/cross_entropy' is nan; batch indices: " in err
    assert result(out)["status"] == "failed"
    assert "failed" in Path(called(capsys, "report", str(out))[1].strip()).read_text()


def test_a_failure_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, "distilled", 1, 8, RuntimeError("step 8: loss is nan"))
        with pytest.raises(RuntimeError, match="loss is nan"):
            run_of(recipe(), tmp_path / "run")
    outcome = result(tmp_path / "run")
    assert outcome["status"] == "failed"
    assert len(outcome["distilled"]["accuracy"]["values"]) == 1
    assert (tmp_path / "run" / "checkpoint" / "distilled-1-stage0.pt").exists()
    assert run_of(recipe(), tmp_path / "run", resume=True)["status"] == "complete"


@pytest.mark.parametrize(
    "name",
    [
        "recipe.yaml",
        "metrics.jsonl",
        "result.json",
        "distilled-0.json",
        "distilled-0.safetensors",
        "student.safetensors",
        "report.html",
    ],
)
def test_a_full_disk_is_one_error_and_leaves_no_half_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is written when the disk is full: one line, exit 1, whole files; and the run can be
    gone on with.
    """
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    out, replace = tmp_path / "run", os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.name == name and mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return original(self, mode, *args, **options)

    original = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(Path, "open", opened)
        code, _, err = called(capsys, "run", str(tmp_path / "small.yaml"), "--out", str(out))
    assert code == 1
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert name in err
    assert "full" in err or "No space left" in err
    assert not [
        path for path in out.rglob("*") if path.name.startswith(".") or path.suffix == ".part"
    ]
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    if (out / "recipe.yaml").exists():
        assert (
            run_of(recipes.load(tmp_path / "small.yaml"), out, resume=True)["status"] == "complete"
        )


# --- real signals


def started(out: Path, cache: Path) -> subprocess.Popen[str]:
    """Start a run in another process, slow enough to be interrupted."""
    words = [
        sys.executable,
        "-m",
        "instil.cli",
        "run",
        str(out.parent / "long.yaml"),
        "--out",
        str(out),
    ]
    environment = os.environ | {"INSTIL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A test run in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 60
    while (
        not list((out / "checkpoint").glob("distilled-0-stage0.pt"))
        and time.monotonic() < until
        and process.poll() is None
    ):
        time.sleep(0.01)
    return process


def long_recipe() -> Recipe:
    """Return a recipe whose student trains for two seconds after its first checkpoint."""
    return recipe("train.epochs=30", "seeds=[0]", "baselines=[]", "data.batch_size=50")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of the same run without a signal."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("INSTIL_CACHE", str(folder / "cache"))
        return run_of(long_recipe(), folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop_signal", [signal.SIGINT, signal.SIGKILL], ids=lambda stop_signal: stop_signal.name
)
def test_a_real_signal(
    stop_signal: signal.Signals,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "long.yaml").write_text(to_yaml(long_recipe()))
    process = started(tmp_path / "run", tmp_path / "cache")
    process.send_signal(stop_signal)
    _, err = process.communicate(timeout=60)
    if stop_signal is signal.SIGINT:
        assert process.returncode == 130
        assert f"Continue with: instil run --resume {tmp_path / 'run'}" in err
        assert "Traceback" not in err
        assert result(tmp_path / "run")["status"] == "interrupted"
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "checkpoint" / "distilled-0.json").exists(), (
        "it was not met in the middle"
    )
    again = run_of(recipes.load(tmp_path / "run"), tmp_path / "run", resume=True)
    assert numbers(again) == numbers(uninterrupted)
    epochs = [(line["arm"], line["seed"], line["epoch"]) for line in lines(tmp_path / "run")]
    assert len(epochs) == len(set(epochs))


def test_the_pairs_of_stages_are_printed(tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=200)
    one = recipe(
        "student={model: cnn, options: {width: 2}}",
        "objectives.fitnet={}",
        "seeds=[0]",
        "baselines=[]",
        "train.epochs=1",
    )
    experiment.run(one, tmp_path / "run", None, console)
    assert "fitnet: student 0 (2x8x8) <- teacher 0 (2x8x8): as it is" in console.export_text()
