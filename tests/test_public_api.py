"""The public names of the package: complete, typed and loaded on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import instil
from instil import catalogue
from tools.public_stub import STUB, public_names, stub_text


def test_the_stub_is_up_to_date() -> None:
    assert STUB.read_text() == stub_text(), "run python tools/public_stub.py"


def test_dir_lists_every_method_and_loss() -> None:
    listed = set(dir(instil))
    assert set(public_names()) <= listed
    for kind in ("objective", "scheme"):
        assert {catalogue.find(kind, name).__name__ for name in catalogue.files(kind)} <= listed
    assert set(catalogue.losses()) <= listed


@pytest.mark.parametrize("name", ["DKD", "dkd_loss", "fit", "distil", "Net", "Frozen", "DINO"])
def test_public_names_can_be_imported(name: str) -> None:
    assert getattr(instil, name).__name__ == name


def test_a_type_checker_knows_the_signatures(tmp_path: Path) -> None:
    code = tmp_path / "user.py"
    code.write_text(
        "from instil import DKD, dkd_loss, fit\n"
        "reveal_type(DKD(beta=2.0))\n"
        "DKD(beta='much')\n"
        "reveal_type(dkd_loss)\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", str(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert 'Revealed type is "instil.objectives.logits.dkd.DKD"' in process.stdout
    assert 'Argument "beta" to "DKD" has incompatible type "str"' in process.stdout
    assert "def (student_logits: torch._tensor.Tensor" in process.stdout


def test_importing_the_package_takes_less_than_torch() -> None:
    code = "import sys, instil; dir(instil); print('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "False"
