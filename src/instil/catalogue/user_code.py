"""Imports of a recipe's own Python modules: the only place that runs code which a recipe names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

MODELS = "instil.models"
"""Entry point group in which an installed package declares functions that build models."""


class UntrustedCode(ValueError):
    """A folder names code of its own, and the caller does not trust the folder."""

    def __init__(self, path: str, code: str, folder: Path):
        super().__init__(
            f"{path}: '{code}' is code of {folder.resolve()} that would be executed. Expected a"
            " run without code of its own, unless you trust its author. If you do, pass"
            " trust_code=True, or --trust-code on the command line"
        )
        self.path = path
        self.code = code
        self.folder = folder


def import_user_module(name: str, folder: Path) -> ModuleType:
    """Import a module from ``folder``, or else from the Python path.

    ``folder`` is first on the Python path during the import. Afterwards it is last, so that
    functions of the module can import their neighbours and no installed package is hidden.

    Args:
        name: name of the module, with dots for one in a package.
        folder: folder of the recipe.

    Returns:
        The module.

    Raises:
        ValueError: if there is no such module, or its import fails.
        ModuleNotFoundError: if the module itself imports a module that does not exist.
    """
    folder = folder.resolve()
    root = name.partition(".")[0]
    if root in sys.stdlib_module_names or root == "instil":
        raise ValueError(
            f"'{root}' is a module of {'Python' if root != 'instil' else 'the package'} itself."
            " Expected a module of your own; give the file another name"
        )
    # Otherwise a loaded module of the same name from another folder would be returned.
    _forget_namesake(name, folder)
    other_paths = [path for path in sys.path if path != str(folder)]
    # In place: other code may hold a reference to sys.path.
    sys.path[:] = [str(folder), *other_paths]
    # The file may have been written after Python listed its folder.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself was found and one of its own imports is missing.
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise ModuleNotFoundError(f"{name}: {error}", name=error.name) from error
        raise ValueError(
            f"no module '{name}' in {folder} or among the installed packages"
        ) from error
    except Exception as error:  # code of a user may raise anything
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path[:] = [*other_paths, str(folder)]


def user_function(
    module: str,
    name: str,
    folder: Path,
    imports: Iterable[str] = (),
    sources: Iterable[str] = (),
) -> Callable[..., Any]:
    """Find the function ``module:name`` that a recipe names as the builder of a model.

    The module is a file in the recipe's folder, a module of the recipe's ``imports``, or the
    function is declared by an installed package (entry point group ``instil.models``). No other
    installed or standard module is used, so that a recipe cannot call ``os:system``.

    Args:
        module: name of the module.
        name: name of the function or class in it.
        folder: folder of the recipe.
        imports: modules that the recipe imports.
        sources: prefixes of model sources, for the message.

    Returns:
        The function.

    Raises:
        ValueError: if the module or the function is not there, or the import fails.
        ModuleNotFoundError: if the module itself imports a module that does not exist.
    """
    from instil.cards import suggestion

    # Checked before the import, which would already run code of the module.
    is_local = module_file(module, folder) is not None or module in imports
    if not is_local and f"{module}:{name}" not in declared_models():
        raise ValueError(
            f"no module '{module}' in {folder.resolve()} or in imports, and no installed"
            f" package declares '{module}:{name}' (entry point group {MODELS})."
            f" Expected a function of a module in the recipe's folder{_or_source(sources)}."
            f"{suggestion(module, sorted({*sources, *_modules_in(folder)}), is_listed=True)}"
        )
    code = import_user_module(module, folder)
    function = getattr(code, name, None)
    if not callable(function):
        functions = [
            key for key, value in vars(code).items() if callable(value) and not key.startswith("_")
        ]
        raise ValueError(f"{module} has no function '{name}'.{suggestion(name, functions)}")
    return function  # type: ignore[no-any-return]


def _or_source(sources: Iterable[str]) -> str:
    """End of a sentence on functions, with the sources that a model may also come from."""
    names = ", ".join(f"{source}:" for source in sources)
    return f", or one of the model sources {names}" if names else ""


def _modules_in(folder: Path) -> list[str]:
    return [file.stem for file in folder.glob("*.py")]


def module_file(name: str, folder: Path) -> Path | None:
    """Return the file of a module in ``folder``, a package's ``__init__.py``, or None."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    path = folder.joinpath(*parts)
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def declared_models() -> set[str]:
    """Return the ``module:function`` of all models that installed packages declare."""
    return {entry.value.replace(" ", "") for entry in entry_points(group=MODELS)}


def _forget_namesake(name: str, folder: Path) -> None:
    """Unload a module of the same name that came from the folder of another recipe."""
    file = module_file(name, folder)
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if file is None or loaded is None or Path(loaded).resolve() == file.resolve():
        return
    root = name.partition(".")[0]
    # With all its submodules, which belong to the same folder.
    for key in [key for key in sys.modules if key == root or key.startswith(f"{root}.")]:
        del sys.modules[key]
