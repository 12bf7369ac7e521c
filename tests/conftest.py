"""Fixtures of all tests: a seed, a clean catalogue and a separate cache of trained teachers.

Tests that would start after the time ``INSTIL_TEST_DEADLINE`` (seconds since 1970) are skipped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import torch

from instil.catalogue import plugins


def pytest_runtest_setup() -> None:
    deadline = os.environ.get("INSTIL_TEST_DEADLINE")
    if deadline is not None and time.time() > float(deadline):
        pytest.skip("the time for the tests is over")


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
