"""Code of a recipe runs only with permission, and only from allowed places."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

import instil
from instil.catalogue import user_code
from instil.catalogue.user_code import UntrustedCode, import_user_module, user_function
from instil.cli import main
from instil.deployment.export import export
from instil.networks.factory import build
from instil.recipe import RecipeError, load
from tests.experiment.small import recipe, run_of

DATA = {"classes": 10, "channels": 1, "size": 8}
NET = """
from pathlib import Path

from torch import nn

Path(__file__).with_name("executed").touch()


def build(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def number():
    return 3
"""
LOSS = """
from pathlib import Path

from instil.core import Card, Objective

Path(__file__).with_name("executed").touch()


class LossOfAStranger(Objective):
    card = Card("Loss of a stranger")
"""


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules)
    for name in ("stranger_net", "stranger_loss"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture(scope="module")
def package_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose student is a network of the package."""
    out = tmp_path_factory.mktemp("trust") / "run"
    run_of(recipe("baselines=[]", student={"model": "mlp"}), out)
    return out


def changed_run(package_run: Path, folder: Path, **changes: object) -> Path:
    """Return a copy of the run with other recipe entries and code that leaves a trace."""
    folder.mkdir()
    (folder / "stranger_net.py").write_text(NET)
    (folder / "stranger_loss.py").write_text(LOSS)
    for file in package_run.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    entries = yaml.safe_load((folder / "recipe.yaml").read_text())
    entries |= {"folder": str(folder), **changes}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(entries))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imports": ["stranger_loss"]}, r"recipe\.yaml: imports: 'stranger_loss' is code of "),
        (
            {"student": {"model": "stranger_net:build"}},
            r"student\.model: 'stranger_net:build' is code of .* trust_code=True, or --trust-code",
        ),
    ],
)
def test_a_run_folder_is_data_unless_it_is_trusted(
    package_run: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    run = changed_run(package_run, tmp_path / "run", **changes)
    with pytest.raises(UntrustedCode, match=message):
        instil.load(run)
    with pytest.raises(UntrustedCode, match=message):
        export(run, int8=False)
    assert not (run / "executed").exists()


def test_the_command_line_asks_for_trust(
    package_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed_run(package_run, tmp_path / "run", imports=["stranger_loss"])
    for command in (["export", str(run)], ["report", str(run)]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == (2 if command[0] == "export" else 0)
    assert "--trust-code" in capsys.readouterr().err
    assert not (run / "executed").exists(), "neither export nor report executes anything"


def test_a_trusted_folder_is_executed(package_run: Path, tmp_path: Path) -> None:
    run = changed_run(package_run, tmp_path / "run", imports=["stranger_loss"])
    assert instil.load(run, trust_code=True).classes == tuple("0123456789")
    assert (run / "executed").exists()


def test_a_teacher_of_user_code_is_no_obstacle_to_its_student(
    package_run: Path, tmp_path: Path
) -> None:
    run = changed_run(package_run, tmp_path / "run", teacher={"model": "stranger_net:build"})
    assert instil.load(run).classes == tuple("0123456789")
    assert not (run / "executed").exists(), "the teacher is not built"


@pytest.mark.parametrize("where", ["student", "teacher"])
def test_a_callable_of_python_is_no_model(tmp_path: Path, where: str) -> None:
    trace = tmp_path / "executed"
    model = {"model": "os:system", "options": {"command": f"touch {trace}"}}
    file = tmp_path / "recipe.yaml"
    entries = {"data": "digits", "teacher": "mlp", "student": "mlp", "objectives": {"kd": {}}}
    file.write_text(yaml.safe_dump(entries | {where: model}))
    from instil.plan.doctor import doctor

    with pytest.raises(
        RecipeError, match=rf"{where}: no module 'os' in .*entry point group instil\.model"
    ):
        doctor(load(file))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["os", "os.path", "subprocess", "instil"])
def test_a_file_does_not_take_the_place_of_a_module_of_python(tmp_path: Path, name: str) -> None:
    folder = tmp_path.joinpath(*name.split(".")[:-1])
    folder.mkdir(exist_ok=True)
    (folder / f"{name.rpartition('.')[2]}.py").write_text("build = print\n")
    with pytest.raises(ValueError, match="give the file another name"):
        import_user_module(name, tmp_path)


def test_an_installed_module_is_used_where_the_recipe_imports_it_or_its_package_declares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, base = tmp_path / "site", tmp_path / "base"
    for folder in (site, base):
        folder.mkdir()
    (site / "stranger_net.py").write_text(NET)
    sys.path.append(str(site))
    with pytest.raises(ValueError, match="no module 'stranger_net' in"):
        build("stranger_net:build", base=base, **DATA)
    assert not (site / "executed").exists()
    assert build("stranger_net:build", base=base, imports=["stranger_net"], **DATA)[1].bias.shape
    entry = EntryPoint("tiny", "stranger_net:build", user_code.MODELS)
    monkeypatch.setattr(user_code, "entry_points", lambda group: [entry])
    assert build("stranger_net:build", base=base, trust_code=False, **DATA)[1].bias.shape
    with pytest.raises(ValueError, match="no module 'stranger_net' in"):
        user_function("stranger_net", "number", base)


def test_a_builder_that_gives_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stranger_net.py").write_text(NET)
    with pytest.raises(ValueError, match=r"returned a int, not a torch\.nn\.Module"):
        build("stranger_net:number", base=tmp_path, **DATA)


def test_a_module_of_a_package_beside_the_recipe(tmp_path: Path) -> None:
    for value in (1, 2):
        package = tmp_path / str(value) / "stranger_package"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "nets.py").write_text(f"def build():\n    return {value}\n")
        builder = user_function("stranger_package.nets", "build", tmp_path / str(value))
        assert builder() == value, "the same name in another folder is another package"
