"""Layers of the package: which package may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instil.catalogue import FOLDERS

SOURCE = Path(__file__).parents[1] / "src" / "instil"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = (
    ("cards",),
    ("roles",),
    ("items",),
    ("taps",),
    ("core",),
    ("capabilities",),
    ("files",),
    ("functional",),
    ("modules",),
    ("generation",),
    ("catalogue",),
    ("objectives", "weightings", "balances"),
    ("teachers", "students", "store", "remote"),
    ("schemes",),
    ("engine",),
    ("training",),
    ("data",),
    ("networks",),
    ("metrics",),
    ("tasks",),
    ("baselines",),
    ("recipe",),
    ("export", "report"),
    ("experiment",),
    ("early_signals",),
    ("plan",),
    ("search",),
    ("comparison",),
    ("deployment",),
    ("offline_scheme",),
    ("distillation",),
    ("integrations",),
    ("testing",),
    ("cli",),
    ("instil",),
)
"""Packages from the lowest layer to the highest. Packages of one layer do not import each other."""

OPTIONAL = {
    "PIL",
    "datasets",
    "dp_accounting",
    "hypothesis",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pytest",
    "pyarrow",
    "ray",
    "soundfile",
    "timm",
    "torchdistill",
    "torchvision",
    "transformers",
    "urllib3",
    "xllamacpp",
    "zstandard",
}
LOWER = ("cards", "roles", "items", "taps", "core", "functional", "objectives")
TORCH_ONLY = {"torch", "annotated_types", "typing_extensions"}


def name_of(path: Path) -> str:
    """Name of a module, such as ``instil.objectives.logits.kd``."""
    parts = ["instil", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def package_of(module: str) -> str:
    """Package or top-level module that stands in the list of layers."""
    _, _, rest = module.partition(".")
    name = rest.partition(".")[0] or "instil"
    return "training" if name in ("train", "step", "batches", "progress") else name


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Full name of each module, or name in a module, that the code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import, line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """Module that defines an imported name."""
    return name if name in MODULES else name.rpartition(".")[0]


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, also inside functions.

    A package that the file lies in has been imported before, so it does not count.
    """
    modules = set()
    for name in imported_names(ast.parse(path.read_text())):
        if name.split(".")[0] == "instil":
            # ``from package import module`` also runs the ``__init__`` of the package
            modules |= {module_of(name), name.rpartition(".")[0]} & MODULES.keys()
    own = name_of(path)
    return {module for module in modules - {"instil"} if not own.startswith(f"{module}.")}


GRAPH = {name: imported_modules(path) - {name} for name, path in MODULES.items()}
LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a module of a higher layer, or of another package of the same layer."""
    upward = []
    for module, targets in graph.items():
        for target in targets:
            source, other = package_of(module), package_of(target)
            if source != other and LEVELS[other] >= LEVELS[source]:
                upward.append(f"{module} imports {target}")
    return upward


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    reached = {module: reachable(graph, module) for module in graph}
    groups = []
    for module in graph:
        group = sorted(other for other in reached[module] if module in reached.get(other, ()))
        if group and group not in groups:
            groups.append(group)
    return groups


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Modules that can be reached by at least one import."""
    pending = list(graph[start])
    reached: set[str] = set()
    while pending:
        module = pending.pop()
        if module not in reached:
            reached.add(module)
            pending.extend(graph.get(module, ()))
    return reached


def top_level_imports(path: Path) -> set[str]:
    """First parts of the names that are imported with the file: not in functions or for types."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if is_function or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            node.body = []
    return {name.split(".")[0] for name in imported_names(tree)}


def test_every_package_has_a_layer() -> None:
    assert {package_of(module) for module in MODULES} == set(LEVELS)


def test_imports_go_down() -> None:
    assert upward_imports(GRAPH) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert cycles(GRAPH) == []


def test_violations_are_found() -> None:
    graph = {
        "instil.taps.net": {"instil.schemes.offline.offline"},
        "instil.schemes.offline.offline": {"instil.schemes.bases.peers"},
        "instil.schemes.bases.peers": {"instil.schemes.offline.offline"},
        "instil.store.reader": {"instil.remote.log"},
        "instil.remote.log": set(),
    }
    assert upward_imports(graph) == [
        "instil.taps.net imports instil.schemes.offline.offline",
        "instil.store.reader imports instil.remote.log",
    ]
    assert cycles(graph) == [["instil.schemes.bases.peers", "instil.schemes.offline.offline"]]


METHODS = {
    name_of(path): kind
    for kind in ("objective", "scheme")
    for folder in FOLDERS[kind]
    for path in sorted((SOURCE / folder.replace(".", "/")).glob("[!_]*.py"))
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_imports_no_other_method_of_its_kind(method: str) -> None:
    """An alias, whose one class builds on that of another method, is the exception."""
    tree = ast.parse(MODULES[method].read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    others = [
        name
        for name in imported_names(tree)
        if METHODS.get(module_of(name)) == METHODS[method]
        and name.rpartition(".")[2] not in {*bases, MODULES[method].stem}
    ]
    assert others == []


def test_the_root_of_the_objectives_holds_folders_only() -> None:
    assert [path.name for path in (SOURCE / "objectives").glob("*.py")] == ["__init__.py"]


def test_functional_defines_no_module() -> None:
    classes = [
        node
        for path in sorted((SOURCE / "functional").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    assert not bases & {"nn.Module", "Module"}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if package_of(name_of(path)) in LOWER],
    ids=name_of,
)
def test_the_lower_layers_need_torch_alone(path: Path) -> None:
    others = top_level_imports(path) - {"instil"} - TORCH_ONLY - sys.stdlib_module_names
    assert others == set()


def test_only_the_engine_uses_a_distributed_library() -> None:
    users = set()
    for path in FILES:
        text = path.read_text()
        names = imported_names(ast.parse(text))
        imports_it = any(
            name.startswith(("torch.distributed", "lightning_fabric")) for name in names
        )
        if imports_it or "torch.distributed." in text:
            users.add(package_of(name_of(path)))
    assert users == {"engine"}


def test_the_command_line_loads_typer_alone() -> None:
    standard = sys.stdlib_module_names
    for name in ("__init__", "app", "commands", "generate_command", "output"):
        assert top_level_imports(SOURCE / "cli" / f"{name}.py") - standard <= {"instil", "typer"}
    assert top_level_imports(SOURCE / "__init__.py") - standard <= {"instil", "lazy_loader"}
    for path in (SOURCE / "catalogue").glob("*.py"):
        if path.name != "signatures.py":
            assert top_level_imports(path) - standard <= {"instil"}


@pytest.mark.parametrize(
    # Integrations subclass classes of the library that they are for.
    "path",
    [path for path in FILES if path.parent.name != "integrations"],
    ids=name_of,
)
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    assert top_level_imports(path) & OPTIONAL == set(), (
        "import an optional package inside the function that needs it"
    )


def test_importing_the_package_does_not_load_torch() -> None:
    code = (
        "import sys, instil, instil.catalogue, instil.cli; dir(instil); "
        "instil.catalogue.names('objective'); print('torch' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "False"
