from __future__ import annotations

from pathlib import Path

import pytest

from instil.files.folders import check_folder


def test_a_folder_and_a_new_path_pass(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "deep")


def test_no_part_of_the_path_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path / "file", tmp_path / "file" / "new" / "deep", tmp_path / "link"):
        with pytest.raises(NotADirectoryError, match=r"--out: .*(file|link) is not a folder"):
            check_folder(path)
