"""Files and folders in recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.data.paths import MissingPath, located


def test_the_closest_name_of_the_same_type_is_proposed(tmp_path: Path) -> None:
    for name in ("images.npz", "image.py", ".image.npz"):
        (tmp_path / name).touch()
    with pytest.raises(MissingPath, match=r"^no 'image\.npz' in .*\. Did you mean images\.npz\?$"):
        located("image.npz", tmp_path)
    with pytest.raises(MissingPath, match=r"^no 'images\.npy' in .*\. Did you mean images\.npz\?$"):
        located("images.npy", tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPath, match=r"^no 'a\.npz' in .*nowhere, and no such folder$") as it:
        located("nowhere/a.npz", tmp_path)
    assert it.value.path == "nowhere/a.npz"
