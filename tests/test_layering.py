"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "instil"
FILES = sorted(SOURCE.rglob("*.py"))
OPTIONAL = {
    *("timm", "torchvision", "transformers", "datasets", "PIL", "onnx", "onnxscript"),
    *(
        "onnxruntime",
        "dp_accounting",
        "zstandard",
        "urllib3",
        "xllamacpp",
        "pytest",
        "hypothesis",
        "torchdistill",
    ),
}


def name_of(path: Path) -> str:
    """``instil.objectives.logits.kd`` of its file."""
    return ".".join(["instil", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Each import statement with the full name of each module, or name in a module, that it loads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import, line {node.lineno}"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def ours(path: Path) -> set[str]:
    return {
        name for _, name in imports(ast.parse(path.read_text())) if name.split(".")[0] == "instil"
    }


def at_the_top(path: Path) -> set[str]:
    """First parts of what a file imports when it is itself imported: not in functions, not for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            node.body = []
    return {name.split(".")[0] for _, name in imports(tree)}


def within(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


@pytest.mark.parametrize("path", sorted((SOURCE / "core").glob("*.py")), ids=name_of)
def test_core_imports_nothing_else_of_ours(path: Path) -> None:
    assert [name for name in ours(path) if not within(name, "instil.core")] == []


METHODS = sorted(
    path for path in (SOURCE / "objectives").glob("*/[!_]*.py") if path.parent.name != "bases"
)
MAY_IMPORT = {
    "functional": ("core", "functional"),
    "modules": ("core", "functional", "modules"),
    "generation": ("core", "functional", "modules", "generation"),
    "objectives/bases": ("core", "functional", "modules", "objectives.bases"),
    "objectives": ("core", "functional", "modules", "objectives"),
    "schemes": ("core", "functional", "modules", "generation", "teachers", "schemes"),
}
"""Layers, and the layers that each of them may import."""


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_go_down(layer: str) -> None:
    below = tuple(f"instil.{name}" for name in MAY_IMPORT[layer])
    assert {
        name_of(path): up
        for path in sorted((SOURCE / layer).rglob("*.py"))
        if (up := [name for name in ours(path) if not within(name, *below)])
    } == {}


@pytest.mark.parametrize("layer", ["functional", "modules", "objectives"])
def test_losses_need_torch_alone(layer: str) -> None:
    allowed = {"instil", "torch", "annotated_types", "typing_extensions", *sys.stdlib_module_names}
    assert {
        name_of(path): others
        for path in sorted((SOURCE / layer).rglob("*.py"))
        if (others := at_the_top(path) - allowed)
    } == {}


def test_functions_are_no_modules() -> None:
    """No class of ``functional`` has parameters or a state."""
    assert [
        name_of(path)
        for path in sorted((SOURCE / "functional").rglob("*.py"))
        if "nn.Module)" in path.read_text()
    ] == []


def test_the_root_of_the_objectives_holds_folders_only() -> None:
    assert [path.name for path in (SOURCE / "objectives").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("path", METHODS, ids=name_of)
def test_a_method_imports_no_other_method(path: Path) -> None:
    """Except an alias, a method with other settings: its one class builds on that method's class."""
    methods = {name_of(other) for other in METHODS}
    bases = {
        ast.unparse(base)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    assert [
        name
        for name in ours(path)
        if any(within(name, method) for method in methods) and name.rpartition(".")[2] not in bases
    ] == []


@pytest.mark.parametrize("path", sorted((SOURCE / "teachers").glob("*.py")), ids=name_of)
def test_teachers_import_core_and_their_own_folder(path: Path) -> None:
    lazily = {"instil.catalogue.named"} if path.name == "__init__.py" else set()
    assert [
        name for name in ours(path) - lazily if not within(name, "instil.core", "instil.teachers")
    ] == []


@pytest.mark.parametrize("path", sorted((SOURCE / "tasks").glob("*.py")), ids=name_of)
def test_tasks_import_no_scheme(path: Path) -> None:
    assert [name for name in ours(path) if within(name, "instil.schemes")] == []


def test_nothing_below_imports_what_drives_it() -> None:
    above = (
        "instil.cli",
        "instil.experiment.run",
        "instil.experiment.doctor",
        "instil.experiment.bench",
        "instil.experiment.build",
        "instil.train",
        "instil.recipe",
        "instil.recipe.sections",
    )
    below = [
        path
        for folder in ("objectives", "schemes", "teachers", "networks", "data", "tasks")
        for path in (SOURCE / folder).rglob("*.py")
    ]
    assert {
        name_of(path): found
        for path in below
        if (found := [name for name in ours(path) if within(name, *above)])
    } == {}


def test_only_the_engine_knows_a_distributed_library() -> None:
    def distributed(path: Path) -> list[str]:
        text = path.read_text()
        named = [
            name
            for _, name in imports(ast.parse(text))
            if within(name, "torch.distributed", "lightning_fabric")
        ]
        return named + (["torch.distributed"] if "torch.distributed." in text else [])

    engine = SOURCE / "engine"
    others = [path for path in FILES if path.parent != engine and distributed(path)]
    assert [name_of(path) for path in others] == []


def test_the_command_line_loads_nothing_but_typer() -> None:
    assert at_the_top(SOURCE / "cli" / "__init__.py") - sys.stdlib_module_names <= {"typer"}
    assert at_the_top(SOURCE / "catalogue" / "__init__.py") - sys.stdlib_module_names == set()
    assert at_the_top(SOURCE / "__init__.py") - sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    assert at_the_top(path) & OPTIONAL == set(), (
        "import an optional package inside the function that needs it"
    )


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, instil, instil.catalogue, instil.cli; dir(instil); instil.catalogue.names('objective'); print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"
