"""Triangle meshes in OFF and OBJ files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".off", ".obj")

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Vertices (V, 3), and indices of the vertices of triangles (T, 3)."""


def read_mesh(file: Path) -> Mesh:
    """Read the vertices and triangles of a mesh; faces of more corners are cut into triangles.

    Args:
        file: OFF or OBJ file.

    Raises:
        ValueError: for a file that is damaged or has no triangles.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    parse = _parse_off if file.suffix.lower() == ".off" else _parse_obj
    try:
        vertices, faces = parse(text)
        triangles: list[tuple[int, int, int]] = []
        for face in faces:
            # A fan around the first corner.
            triangles += zip(face[:1] * (len(face) - 2), face[1:], face[2:], strict=False)
        indices = np.array(triangles, np.int64).reshape(-1, 3)
        points = np.array(vertices, np.float64).reshape(-1, 3)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{file}: cannot be read as a mesh: {error}") from error
    is_inside = len(indices) > 0 and indices.min() >= 0 and indices.max() < len(points)
    if not is_inside or not np.isfinite(points).all():
        raise ValueError(
            f"{file}: damaged mesh. Expected finite vertices and faces that name them, got "
            f"{len(points)} vertices and {len(indices)} triangles"
        )
    return points, indices


def _parse_off(text: str) -> tuple[list[list[float]], list[list[int]]]:
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    words = [line for line in lines if line]
    if not words or not words[0][0].upper().startswith("OFF"):
        raise ValueError("the first word is not OFF")
    # Some files of ModelNet have the counts right after the word, without a space.
    head = [words[0][0][3:], *words[0][1:]]
    counts = [word for word in head if word]
    rows = words[1:]
    if not counts:
        counts = rows[0]
        rows = rows[1:]
    num_vertices, num_faces = int(counts[0]), int(counts[1])
    if len(rows) < num_vertices + num_faces:
        raise ValueError(f"{num_vertices} vertices and {num_faces} faces announced, the file ends")
    vertices = [[float(value) for value in row[:3]] for row in rows[:num_vertices]]
    faces = rows[num_vertices : num_vertices + num_faces]
    return vertices, [[int(index) for index in row[1 : 1 + int(row[0])]] for row in faces]


def _parse_obj(text: str) -> tuple[list[list[float]], list[list[int]]]:
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(value) for value in words[1:4]])
        elif words[:1] == ["f"]:
            indices = [int(word.split("/")[0]) for word in words[1:]]
            # Indices count from 1; negative ones count back from the last vertex.
            faces.append([i - 1 if i > 0 else len(vertices) + i for i in indices])
    return vertices, faces
