"""The runner distinguishes agreement from disagreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.__main__ import main
from tests.golden.cases import Case, compare, relative_error

LOGITS = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)


def folder(path: Path, method: str = "logit_mse", **changes: Any) -> str:
    """Return one case: zero teacher logits, so the loss is 7 and the gradient 2/3 of the logits."""
    arrays = {
        "student.logits": LOGITS,
        "teacher.logits": 0 * LOGITS,
        "loss": np.array(7.0),
        "grad.student.logits": LOGITS * 2 / 3,
    }
    np.savez(
        path / "one.npz",
        **{**arrays, **{name.replace("__", "."): value for name, value in changes.items()}},
    )
    entry = {
        "case": "one",
        "method": method,
        "options": {},
        "reduction": "mean over N*C elements",
        "source": "",
        "rtol": 1e-5,
    }
    (path / "index.json").write_text(json.dumps([entry]))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "code", "summary"),
    [
        ({}, 0, "1 passed, 0 failed, 0 declined, 0 unknown"),
        ({"loss": np.array(7.001)}, 1, "0 passed, 1 failed, 0 declined, 0 unknown"),
        ({"grad__student__logits": LOGITS}, 1, "0 passed, 1 failed, 0 declined, 0 unknown"),
        ({"loss": np.array(np.nan)}, 1, "0 passed, 1 failed, 0 declined, 0 unknown"),
        (
            {"teacher__logits": np.zeros((1, 4), dtype=np.float32)},
            1,
            "0 passed, 1 failed, 0 declined, 0 unknown",
        ),
        ({"method": "new_method"}, 0, "0 passed, 0 failed, 0 declined, 1 unknown"),
    ],
)
def test_the_last_line_and_the_exit_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    code: int,
    summary: str,
) -> None:
    assert main([folder(tmp_path, **changes)]) == code
    assert capsys.readouterr().out.splitlines()[-1] == summary


def test_an_option_that_the_adapter_does_not_read_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(tmp_path)
    entries = json.loads((tmp_path / "index.json").read_text())
    entries[0]["options"] = {"beta": 1.0, "sharpness": 2}
    (tmp_path / "index.json").write_text(json.dumps(entries))
    assert main([path]) == 1
    assert "does not know the options sharpness=2" in capsys.readouterr().out


def test_a_missing_array_file_is_a_failure_and_a_missing_index_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(tmp_path)
    (tmp_path / "one.npz").unlink()
    assert main([path]) == 1
    assert "FileNotFoundError" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "index.json" in capsys.readouterr().err


def test_relative_error() -> None:
    assert relative_error(
        torch.tensor([1.0, 4.4]), torch.tensor([1.0, 4.0]).double()
    ) == pytest.approx(0.1)
    assert relative_error(torch.tensor([0.5]), torch.tensor([0.0]).double()) == 0.5
    assert relative_error(torch.tensor([torch.nan]), torch.tensor([1.0]).double()) == float("inf")
    assert relative_error(torch.zeros(2), torch.zeros(3).double()) == float("inf")


def test_a_gradient_of_rounding_alone_is_zero_and_must_be_so_in_ours() -> None:
    weight, bias = (
        torch.ones(2, dtype=torch.float64, requires_grad=True),
        torch.ones(2, dtype=torch.float64, requires_grad=True),
    )
    arrays = {
        "weight": weight,
        "bias": bias,
        "loss": torch.tensor(2.0).double(),
        "grad.weight": torch.ones(2).double(),
    }
    case = Case(
        "one", "method", "", {}, "", 1e-5, {**arrays, "grad.bias": torch.full((2,), 3e-16).double()}
    )
    assert (
        compare(case, lambda case: (case["weight"] + case["bias"] - case["bias"]).sum())[
            "grad.bias"
        ]
        == 0
    )
    assert compare(case, lambda case: (case["weight"] + 1e-3 * case["bias"]).sum())[
        "grad.bias"
    ] == pytest.approx(1e-3)
