"""Fixtures of all tests: a seed, a clean catalogue and a separate cache of trained teachers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from instil.catalogue import plugins


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin each test with the same random state, in any order of the tests."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def only_the_packages_methods() -> Iterator[None]:
    """Remove methods that a test imports before the next test."""
    before = dict(plugins.imported)
    yield
    plugins.imported.clear()
    plugins.imported.update(before)


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share trained teachers between tests, outside of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Students are trained, unless a test shares them.
        patch.setenv("INSTIL_CACHE_GB", "0")
        # ultralytics writes its settings when it is imported.
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        patch.setenv("YOLO_OFFLINE", "true")
        yield
