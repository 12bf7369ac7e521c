"""A new file in a folder of methods or sources is covered everywhere without another line.

The package is copied to a temporary folder and gets an objective and a data source as files.
Contracts, benchmarks, command line and documentation run on that copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import instil

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
OBJECTIVE = '''"""Planted objective: half the squared distance of the logits."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive


def planted_loss(student_logits: Tensor, teacher_logits: Tensor, factor: float = 0.5) -> Tensor:
    """Squared distance of the logits times ``factor``, one value per item (N,)."""
    return factor * (student_logits.float() - teacher_logits.float()).square().sum(-1)


class Planted(Objective):
    """Squared distance of the logits."""

    card = Card("Planted", source="logits", finite_logits=True)

    def __init__(self, factor: Annotated[Positive, Doc("factor of the distance")] = 0.5):
        super().__init__()
        self.factor = factor

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return planted_loss(student["logits"], teacher["logits"], self.factor)
'''
SOURCE = '''"""Source ``planted``: the digits again."""

from __future__ import annotations

from instil.data.sources.digits import digits
from instil.data.splits import Splits


def planted() -> Splits:
    """The digits under another name."""
    return digits()
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a copy of the package that has two files more."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(instil.__file__).parent, folder / "instil", ignore=ignore)
    (folder / "instil/objectives/logits/planted.py").write_text(OBJECTIVE)
    (folder / "instil/data/sources/planted.py").write_text(SOURCE)
    return folder


def python(package: Path, *arguments: str) -> str:
    """Run Python on the copy of the package and return what it prints."""
    paths = [str(package), str(ROOT), str(ROOT / "docs"), str(ROOT / "benchmarks")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_catalogue_and_public_names_have_the_file(package: Path) -> None:
    code = """
import json, instil
from instil import catalogue
from instil.experiment.source_functions import source_names
print(json.dumps({
    "file": instil.__file__,
    "is_method": "planted" in catalogue.names("objective"),
    "loss": catalogue.losses()["planted_loss"],
    "class": instil.Planted.__name__,
    "function": instil.planted_loss.__name__,
    "is_source": "planted" in source_names(),
}))"""
    printed = json.loads(python(package, "-c", code))
    assert Path(printed.pop("file")).is_relative_to(package)
    assert printed == {
        "is_method": True,
        "loss": "instil.objectives.logits.planted",
        "class": "Planted",
        "function": "planted_loss",
        "is_source": True,
    }


def test_the_command_line_lists_both(package: Path) -> None:
    main = "import sys; from instil.cli import main; main(sys.argv[1:])"
    assert "planted" in python(package, "-c", main, "methods")
    described = python(package, "-c", main, "methods", "planted")
    assert "factor of the distance" in described
    assert "instil.planted_loss" in described
    assert "The digits under another name" in python(
        package, "-c", main, "methods", "--kind", "data"
    )


def test_the_contracts_run_on_the_objective(package: Path) -> None:
    arguments = ("-q", "-k", "planted", "-p", "no:cacheprovider", "-rA")
    printed = python(package, "-m", "pytest", "tests/test_contracts.py", *arguments)
    for contract in ("test_objective", "test_losses_on_logits_take_any_positions"):
        assert f"PASSED tests/test_contracts.py::{contract}[planted]" in printed
    assert "test_an_option_is_kept_under_its_name_and_survives_a_recipe[planted-factor" in printed


def test_it_trains_on_a_packaged_recipe_and_has_a_parity_case(package: Path) -> None:
    code = """
from tests import parity, test_every_objective
print(test_every_objective.packaged_recipe("planted"), "planted" in parity.SCHEMES)"""
    assert python(package, "-c", code).split() == ["digits", "True"]


def test_the_benchmarks_measure_the_objective(package: Path) -> None:
    arguments = ("objective planted", "--rounds", "1", "--json")
    printed = json.loads(python(package, "benchmarks/losses.py", *arguments))
    assert [row["loss"] for row in printed["rows"]] == ["objective planted"]
    assert printed["rows"][0]["ms"] > 0
    code = "import methods; print(('classification', 'planted') in methods.rows())"
    assert python(package, "-c", code).strip() == "True"


def test_the_documentation_has_pages(package: Path) -> None:
    code = """
import json, generate
pages = generate.pages()
names = ("methods.md", "methods/planted.md", "sources.md")
print(json.dumps({name: pages[name] for name in names}))"""
    pages = json.loads(python(package, "-c", code))
    assert "Planted objective" in pages["methods.md"]
    assert "| `factor` |" in pages["methods/planted.md"]
    assert "The digits under another name" in pages["sources.md"]
