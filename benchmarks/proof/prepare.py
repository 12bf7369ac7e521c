"""Data of the eight tasks on which the search is compared with an exhaustive search.

python benchmarks/proof/prepare.py SOURCES FOLDER

SOURCES has ``mnist10k.npz``, ``emoji.npz``, ``espeak_commands_logmel.npz``, ``points.npz``,
``debian_packages_graph.npz``, ``spam_assassin.jsonl.gz`` and ``diamonds.csv`` (of the R package
ggplot2, MIT licence). The language model reads the standard library of Python.

Most training samples have no label and are not needed. They are moved to the validation split,
where a choice among similar methods needs them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

NUM_TURNS = 3
"""Copies of each point cloud for validation and test."""


def downscale(images: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    """Average blocks of factor x factor pixels of uint8 images (N, H, W, ...)."""
    n, height, width, *rest = images.shape
    shape = (n, height // factor, factor, width // factor, factor, *rest)
    return images.reshape(shape).mean((2, 4)).astype(np.uint8)


def mnist(sources: Path, folder: Path) -> None:
    """Write 14 x 14 digits: 2,000 / 6,000 / 2,000."""
    data = np.load(sources / "mnist10k.npz")
    np.savez(
        folder / "mnist.npz",
        image=downscale(data["images"], 2),
        label=data["labels"],
        split=np.repeat([0, 1, 2], [2000, 6000, 2000]).astype(np.uint8),
    )


def emoji(sources: Path, folder: Path) -> None:
    """Write 16 x 16 drawings of five vendors with the group of the emoji: 2,600 / 2,600 / 2,760.

    The drawings of one family of emoji are in one split.
    """
    data = np.load(sources / "emoji.npz")
    num_vendors = data["images"].shape[1]
    split = split_groups(data["family"], (520, 520))
    np.savez(
        folder / "emoji.npz",
        image=downscale(data["images"].reshape(-1, 32, 32, 3), 2),
        label=np.repeat(data["group"], num_vendors),
        split=np.repeat(split, num_vendors),
    )


def speech(sources: Path, folder: Path) -> None:
    """Write log-mel frames (N, 64, 40) of voice commands: 40 / 27 / 27 voices."""
    data = np.load(sources / "espeak_commands_logmel.npz")
    frames = data["logmel"].astype(np.float32).transpose(0, 2, 1)
    frames = (frames - frames.mean()) / frames.std()
    split = split_groups(data["speaker"], (800, 540))
    np.savez(folder / "speech.npz", frames=frames, label=data["label"], split=split)


def points(sources: Path, folder: Path) -> None:
    """Write point clouds (N, 256, 3): 600 / 400 / 1,000.

    Those for validation and test are written three times, turned around the vertical axis and with
    their points in another order, since a student reads the first points only.
    """
    data = np.load(sources / "points.npz")
    random = np.random.default_rng(0)
    rows = np.r_[0:600, np.repeat(np.arange(600, 2000), NUM_TURNS)]
    clouds = data["points"][rows].astype(np.float32)
    for cloud in clouds[600:]:
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        cloud[:, :2] = cloud[:, :2] @ turn
        cloud[:] = random.permutation(cloud)
    split = np.repeat([0, 1, 2], [600, 400 * NUM_TURNS, 1000 * NUM_TURNS]).astype(np.uint8)
    np.savez(folder / "points.npz", points=clouds, label=data["label"][rows], split=split)


def packages(sources: Path, folder: Path) -> None:
    """Write the graph of packages with dense word features: 200 / 1,500 / 2,449 nodes."""
    data = np.load(sources / "debian_packages_graph.npz")
    starts = data["x_indptr"]
    features = np.zeros((len(data["label"]), len(data["vocab"])), np.float32)
    for row in range(len(features)):
        features[row, data["x_indices"][starts[row] : starts[row + 1]]] = 1
    edges = np.concatenate([data["edge_depends"], data["edge_codepends"]], 1)
    split = data["split"].copy()
    split[np.random.default_rng(0).permutation(np.flatnonzero(split == 2))[:1200]] = 1
    np.savez(
        folder / "packages.npz",
        x=features,
        edge_index=edges.astype(np.int64),
        y=data["label"].astype(np.int64),
        split=split,
    )


def spam(sources: Path, folder: Path) -> None:
    """Write the first 400 characters of mails: 2,000 / 2,710 / 1,178."""
    (folder / "spam").mkdir(exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    with gzip.open(sources / "spam_assassin.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            is_surplus = row["split"] == "train" and len(rows["train"]) == 2000
            part = rows["val" if is_surplus else row["split"]]
            part.append({"text": row["text"][:400].lower(), "label": row["label"]})
    for split, part in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / "spam" / f"{split}.jsonl").write_text(text, encoding="utf-8")


def diamonds(sources: Path, folder: Path) -> None:
    """Write 2,400 / 8,800 / 4,000 rows with the quality of the cut as label."""
    with (sources / "diamonds.csv").open(encoding="utf-8", newline="") as lines:
        header, *rows = list(csv.reader(lines))
    order = np.random.default_rng(0).permutation(len(rows))
    parts = {
        "train": order[:2400],
        "validation": np.r_[order[2400:3200], order[7200:15200]],
        "test": order[3200:7200],
    }
    (folder / "diamonds").mkdir(exist_ok=True)
    for name, part in parts.items():
        with (folder / "diamonds" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header[1:])
            writer.writerows(rows[i][1:] for i in part)


def split_groups(
    groups: np.ndarray[Any, Any], sizes: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return 0, 1 or 2 (training, validation, test) of each sample; a group is in one split.

    Args:
        groups: group of each sample.
        sizes: least samples of the training and of the validation split.
    """
    names = np.random.default_rng(0).permutation(np.unique(groups))
    counts = np.array([(groups == name).sum() for name in names])
    # Samples before each group, in random order of the groups.
    starts = np.cumsum(counts) - counts
    split_of = np.digitize(starts, np.cumsum(sizes))
    order = np.argsort(names)
    return split_of[order[np.searchsorted(names[order], groups)]].astype(np.uint8)


def main() -> None:
    """Write all data sets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for write in (mnist, emoji, speech, points, packages, spam, diamonds):
        write(options.sources, options.folder)


if __name__ == "__main__":
    main()
