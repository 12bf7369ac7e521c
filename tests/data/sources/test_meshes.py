"""Meshes of OFF and OBJ files: surfaces, splits, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from instil.data.mesh_files import read_mesh
from instil.data.sources.meshes import meshes, sample_surface

SQUARE = "OFF\n4 1 0\n0 0 0\n2 0 0\n2 1 0\n0 1 0\n4 0 1 2 3\n"
TETRAHEDRON = """# a tetrahedron
v 0 0 0
v 1 0 0
v 0 1 0
v 0 0 1
f 1/1 3/1 2/1
f 1 2 4
f -4 -1 -2
f 2 3 4
"""


def folder_of(tmp_path: Path, split: str) -> Path:
    for index in range(6):
        for name, text, suffix in (("flat", SQUARE, "off"), ("solid", TETRAHEDRON, "obj")):
            folder = tmp_path / "meshes" / name / split
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.{suffix}").write_text(text)
    return tmp_path / "meshes"


def test_faces_of_four_corners_are_two_triangles(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text(SQUARE)
    vertices, triangles = read_mesh(tmp_path / "a.off")
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert vertices.shape == (4, 3)


def test_counts_may_follow_the_first_word(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text(SQUARE.replace("OFF\n", "OFF"))
    assert len(read_mesh(tmp_path / "a.off")[1]) == 2


def test_indices_of_obj_count_from_one_or_from_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(TETRAHEDRON)
    triangles = read_mesh(tmp_path / "a.obj")[1]
    assert triangles.tolist() == [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]


def test_points_are_uniform_by_area() -> None:
    # Two triangles: the second one has three times the area of the first.
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5.0]])
    triangles = np.array([[0, 1, 2], [3, 4, 5]])
    xyz, normals = sample_surface(vertices, triangles, 8000, seed=0)
    assert xyz is not None
    upper = xyz[:, 2] > 2
    assert abs(upper.mean() - 0.75) < 0.02
    np.testing.assert_allclose(xyz[upper, :2].mean(0), [1, 1 / 3], atol=0.03)
    assert (xyz[upper, 0] / 3 + xyz[upper, 1] <= 1 + 1e-9).all()
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 8000)


@pytest.mark.parametrize("split", ["", "train"])
def test_classes_are_folders(tmp_path: Path, split: str) -> None:
    data = meshes(str(folder_of(tmp_path, split)), points=50, validation=0.2, test=0.2)
    assert data.classes == ("flat", "solid")
    points = torch.cat(
        [
            part.inputs(torch.arange(len(part)))["points"]
            for part in (data.train, data.validation, data.test)
        ]
    )
    assert points.shape == (12, 50, 3)
    assert points.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(points.norm(dim=2).amax(1), torch.ones(12))
    flat = data.train.inputs((data.train.label == 0).nonzero().flatten())["points"]
    assert flat[..., 2].abs().max() < 1e-6
    assert not torch.equal(flat[0], flat[1]), "each file has points of its own"


def test_splits_of_the_folder_and_normals(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "train")
    folder_of(tmp_path, "test")
    data = meshes(str(root), points=20, normals=True, validation=0.2)
    assert len(data.test) == 12
    assert data.train.facts["channels"] == 6
    normals = data.test.inputs(torch.arange(12))["points"][..., 3:]
    torch.testing.assert_close(normals.norm(dim=2), torch.ones(12, 20))
    again = meshes(str(root), points=20, normals=True, validation=0.2)
    rows = torch.arange(12)
    assert torch.equal(data.test.inputs(rows)["points"], again.test.inputs(rows)["points"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PLY\n", "the first word is not OFF"),
        ("OFF\n4 1 0\n0 0 0\n", "the file ends"),
        (SQUARE.replace("0 1 2 3", "0 1 2 9"), "damaged mesh.*4 vertices and 2 triangles"),
        (SQUARE.replace("2 1 0", "nan 1 0"), "damaged mesh"),
        ("OFF\n1 1 0\n0 0 0\n3 0 0 0\n", "all triangles have the area 0"),
        ("OFF\n1 0 0\n0 0 0\n", "damaged mesh"),
    ],
)
def test_damaged_files_raise_with_their_name(tmp_path: Path, text: str, message: str) -> None:
    root = folder_of(tmp_path, "")
    (root / "flat" / "bad.off").write_text(text)
    with pytest.raises(ValueError, match=f"bad.off: .*{message}"):
        meshes(str(root), points=10)


def test_other_folders_raise(tmp_path: Path) -> None:
    (tmp_path / "empty" / "cup").mkdir(parents=True)
    with pytest.raises(ValueError, match="cup has no meshes"):
        meshes(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="has no folders"):
        meshes(str(tmp_path / "empty" / "cup"))
    root = folder_of(tmp_path, "training")
    with pytest.raises(ValueError, match=r"training: unknown folder in a class\. Expected train"):
        meshes(str(root))
