"""Benchmarks run and print the expected JSON; the measured values are not tested."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from instil import catalogue
from instil.functional.tokens.chunk_sizes import CHUNK

STEP = Path(__file__).parents[1] / "benchmarks" / "step.py"


@pytest.mark.slow
def test_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(STEP))
    monkeypatch.setattr("sys.argv", ["step.py", "--json", "--blocks", "2"])
    monkeypatch.setitem(module["main"].__globals__, "SIZES", {"ratio": module["SIZES"]["tiny"]})
    module["main"]()
    results = json.loads(capsys.readouterr().out)
    ratios = {name: value for name, value in results.items() if name.startswith("ratio_")}
    assert {"ratio_kd_to_plain", "ratio_kd_fitnet_to_plain", "ratio_taps"} <= set(ratios)
    assert all(0.1 < value < 10 for value in ratios.values())
    assert all(not isinstance(value, (dict, list)) for value in results.values())


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Use float64 as default type, so that rounding is smaller than any difference of methods."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double_precision")
def test_both_sides_of_the_step_learn_the_same() -> None:
    """The hand-written step and that of the package end with the same weights."""
    torch = pytest.importorskip("torch")
    module = runpy.run_path(str(STEP))
    size, compared = module["SIZES"]["tiny"], []
    for plain in (module["plain_kd"], module["plain_kd_fitnet"]):
        nets = module["nets"]
        students = []

        def keep(size: dict[str, int], nets=nets, students=students):
            students.append(nets(size))
            return students[-1]

        plain.__globals__["nets"] = keep
        step = plain(size)
        goals = {
            "cross_entropy": module["CrossEntropy"](),
            "kd": module["KD"](module["TEMPERATURE"]),
        }
        if plain is module["plain_kd_fitnet"]:
            goals["fitnet"] = module["FitNet"]()
        module["fit_ratio"](size, goals, step, 2, 3)
        plain.__globals__["nets"] = nets
        (reference, _), (ours, _) = students
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
        compared.append(ours)
    assert len(compared) == 2


@pytest.mark.slow
def test_language(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All formulations of a loss agree, and memory is constant if a chunk has fewer tokens."""
    module = runpy.run_path(str(STEP.with_name("language.py")))
    monkeypatch.setitem(CHUNK, "cpu", 16 * 300)
    monkeypatch.setattr(
        "sys.argv",
        [
            "language.py",
            "--json",
            "--tokens",
            "64",
            "--vocabulary",
            "300",
            "--width",
            "8",
            "--rounds",
            "1",
        ],
    )
    module["main"]()
    results = json.loads(capsys.readouterr().out)
    assert {"memory_ratio_to_trl_jsd", "time_ratio_to_trl_jsd", "time_ratio_to_naive_kl"} <= set(
        results
    )
    assert results["memory_ratio_to_trl_jsd"] < 0.3
    assert results["MiB_jsd_of_256_tokens"] == pytest.approx(
        results["MiB_jsd_of_64_tokens"], abs=0.1
    )
    assert all(not isinstance(value, (dict, list)) for value in results.values())


LOSSES = Path(__file__).parents[1] / "benchmarks" / "losses.py"
SMALL: dict[str, dict[str, object]] = {
    "logits": {"shape": (6, 5)},
    "tokens": {"shape": (6, 7)},
    "regions": {"shape": (4, 5, 6)},
    "boxes": {"shape": (5, 12)},
    "maps": {"shape": (3, 4, 6, 6)},
    "few_maps": {"shape": (3, 4, 6, 6)},
    "embeddings": {"shape": (7, 5), "memory": 9},
    "samples": {"shape": (7, 5), "memory": 9},
    "triples": {"shape": (32, 32), "memory": 4},
    "hidden": {"shape": (2, 3, 4)},
    "attentions": {"shape": (2, 2, 3, 3)},
}


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.syspath_prepend(str(LOSSES.parent))
    return runpy.run_path(str(LOSSES))


def test_every_formulation_of_a_loss_is_the_same_loss(losses: dict[str, object]) -> None:
    """Compare values and gradients with the other formulations.

    Plain formulations have the same value and gradient. Those of torchdistill have the same
    direction of the gradient, unless the case is marked.
    """
    torch = pytest.importorskip("torch")
    gradient, formulations, inputs, cases = (
        losses[name] for name in ("gradient", "formulations", "inputs", "CASES")
    )
    for name, case in cases.items():  # type: ignore[attr-defined]
        for kind in case.kinds:
            sample = inputs(kind, SMALL[kind], dtype=torch.float64)  # type: ignore[operator]
            results = {
                which: gradient(run, sample) for which, run in formulations(name, sample).items()
            }  # type: ignore[operator]
            value, slope = results["instil"]
            slope = torch.cat([part.flatten() for part in slope])
            assert slope.any(), name
            for which in results.keys() - {"instil"}:
                reference = torch.cat([part.flatten() for part in results[which][1]])
                if which == "plain":
                    assert torch.isclose(results[which][0], value, rtol=1e-4), name
                    assert torch.allclose(
                        reference, slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max())
                    ), name
                elif case.same_direction:
                    assert (
                        torch.nn.functional.cosine_similarity(reference, slope, dim=0) > 0.9999
                    ), name


def test_every_objective_has_a_case_with_a_gradient(losses: dict[str, object]) -> None:
    cases, gradients = losses["cases"], losses["gradients"]
    names = losses["objective_cases"]()  # type: ignore[operator]
    assert names == [f"objective {name}" for name in catalogue.names("objective")]
    for name, sample, runs in cases(names, {}):  # type: ignore[operator]
        loss, leaves, grads = gradients(runs["instil"], sample)  # type: ignore[operator]
        assert loss.isfinite(), name
        assert leaves, name
        assert any(grad is not None and grad.any() for grad in grads), name


def test_losses(
    losses: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = losses["main"]
    monkeypatch.setitem(main.__globals__, "SIZES", SMALL)  # type: ignore[attr-defined]
    monkeypatch.setitem(main.__globals__, "TURN", 0.0)  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "sys.argv", ["losses.py", "kd_loss", "fitnet", "rkd", "--json", "--rounds", "2"]
    )
    main()  # type: ignore[operator]
    results = json.loads(capsys.readouterr().out)["rows"]
    assert {"kd_loss", "fitnet_loss", "rkd_angle_loss"} <= {row["loss"] for row in results}
    assert max(row["MiB_instil"] for row in results) > 0
    assert all(row["plain"] > 0 for row in results if row["loss"] in ("kd_loss", "fitnet_loss"))
    monkeypatch.setattr("sys.argv", ["losses.py", "kd_loss", "--rounds", "1"])
    main()  # type: ignore[operator]
    assert capsys.readouterr().out.splitlines()[0].startswith("loss")


@pytest.mark.slow
def test_store(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path))
    module = runpy.run_path(str(STEP.with_name("store.py")))
    monkeypatch.setattr("sys.argv", ["store.py", "--json", "--rounds", "1", "--steps", "1"])
    module["main"]()
    results = json.loads(capsys.readouterr().out)
    assert set(results) == {"exact_ratio", "float16_ratio", "live_ratio"}
    assert all(0.1 < value < 10 for value in results.values())


def test_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STEP.parent))
    module = runpy.run_path(str(STEP.with_name("schemes.py")))
    settings = module["measured"].__globals__
    monkeypatch.setitem(settings, "WIDTHS", {"cnn": 4, "causal_transformer": 32})
    for name in ("offline", "mutual"):
        row = module["measured"](name, 4)
        assert row.get("error") is None
        assert 1 <= row["time"] < 10
        assert row["memory"] >= 1


def test_perplexities_of_texts_are_compared_with_intervals() -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("transformers")
    module = runpy.run_path(str(STEP.with_name("smollm2.py")))
    # Sums of losses and numbers of tokens of three rows, of which the last one is longer.
    teacher = np.array([[2.0, 1.0], [4.0, 1.0], [12.0, 4.0]])
    shift = np.array([[1.0, 0.0]]) * teacher[:, 1:]
    rows = {"teacher": teacher, "depth/alone": teacher + 2 * shift, "depth/kd": teacher + shift}
    table = module["compare"](rows)
    assert table["teacher"]["perplexity"] == pytest.approx(np.exp(3))
    low, high = table["teacher"]["interval"]
    assert np.exp(2) <= low < np.exp(3) < high <= np.exp(4)
    # Each token costs one nat more, whatever rows are drawn.
    assert table["depth/kd"]["to_teacher"] == pytest.approx(np.e)
    assert table["depth/kd"]["to_teacher_interval"] == pytest.approx([np.e, np.e])
    assert table["depth/kd"]["to_alone"] == pytest.approx(1 / np.e)
    assert "to_alone" not in table["depth/alone"]
