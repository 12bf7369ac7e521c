"""What every test is given: a catalogue that forgets what the test adds, and a place of its own for
trained teachers.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from instil.catalogue import plugins


@pytest.fixture(autouse=True)
def only_the_packages_methods() -> Iterator[None]:
    """Methods that a test imports do not meet the next test."""
    before = dict(plugins.imported)
    yield
    plugins.imported.clear()
    plugins.imported.update(before)


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Teachers that tests train are shared among them and are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
