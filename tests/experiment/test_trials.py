"""Robustness evaluations that the scheme of the recipe adds."""

from __future__ import annotations

from pathlib import Path

from tests.experiment.small import recipe, run_of


def test_every_net_is_attacked_within_the_recipes_epsilon_and_no_net_where_the_scheme_attacks_none(
    tmp_path: Path,
) -> None:
    scheme = {"type": "rslad", "epsilon": 0.0, "attack_steps": 1}
    outcome = run_of(recipe("seeds=[0]", "baselines=[alone]", scheme=scheme), tmp_path / "still")
    for arm in ("teacher", "alone", "distilled"):
        assert (
            outcome[arm]["fgsm"]["mean"]
            == outcome[arm]["pgd"]["mean"]
            == outcome[arm]["accuracy"]["mean"]
        )
    outcome = run_of(
        recipe(
            "seeds=[0]",
            "baselines=[alone]",
            "train.epochs=15",
            scheme=scheme | {"epsilon": 0.5, "step_size": 0.1},
        ),
        tmp_path / "attacked",
    )
    for arm in ("teacher", "alone", "distilled"):
        assert outcome[arm]["pgd"]["mean"] < outcome[arm]["accuracy"]["mean"]
    assert "Accuracy under PGD" in (tmp_path / "attacked" / "report.html").read_text()
    assert (
        "pgd"
        not in run_of(recipe("seeds=[0]", "baselines=[alone]"), tmp_path / "plain")["distilled"]
    )
