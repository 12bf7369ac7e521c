"""Data of the eight tasks on which the search is compared with an exhaustive search.

python benchmarks/proof/prepare.py SOURCES FOLDER

SOURCES has ``mnist10k.npz``, ``emoji.npz``, ``espeak_commands_logmel.npz``, ``points.npz``,
``debian_packages_graph.npz``, ``spam_assassin.jsonl.gz`` and ``diamonds.csv`` (of the R package
ggplot2, MIT licence). The language model reads the standard library of Python.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np


def downscale(images: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    """Average blocks of factor x factor pixels of uint8 images (N, H, W, ...)."""
    n, height, width, *rest = images.shape
    shape = (n, height // factor, factor, width // factor, factor, *rest)
    return images.reshape(shape).mean((2, 4)).astype(np.uint8)


def mnist(sources: Path, folder: Path) -> None:
    """Write 14 x 14 digits; the first 2,000 training images."""
    data = np.load(sources / "mnist10k.npz")
    split = np.repeat([0, 1, 2], [7000, 1000, 2000]).astype(np.uint8)
    rows = np.r_[0:2000, 7000:10000]
    np.savez(
        folder / "mnist.npz",
        image=downscale(data["images"][rows], 2),
        label=data["labels"][rows],
        split=split[rows],
    )


def emoji(sources: Path, folder: Path) -> None:
    """Write 16 x 16 drawings of two vendors with the group of the emoji."""
    data = np.load(sources / "emoji.npz")
    images = data["images"][:, :2].reshape(-1, 32, 32, 3)
    np.savez(
        folder / "emoji.npz",
        image=downscale(images, 2),
        label=np.repeat(data["group"], 2),
        split=np.repeat(data["split"], 2),
    )


def speech(sources: Path, folder: Path) -> None:
    """Write log-mel frames (N, 64, 40) of voice commands."""
    data = np.load(sources / "espeak_commands_logmel.npz")
    frames = data["logmel"].astype(np.float32).transpose(0, 2, 1)
    frames = (frames - frames.mean()) / frames.std()
    np.savez(folder / "speech.npz", frames=frames, label=data["label"], split=data["split"])


def points(sources: Path, folder: Path) -> None:
    """Write point clouds (N, 256, 3)."""
    data = np.load(sources / "points.npz")
    np.savez(
        folder / "points.npz",
        points=data["points"].astype(np.float32),
        label=data["label"],
        split=data["split"],
    )


def packages(sources: Path, folder: Path) -> None:
    """Write the graph of packages with dense word features."""
    data = np.load(sources / "debian_packages_graph.npz")
    starts = data["x_indptr"]
    features = np.zeros((len(data["label"]), len(data["vocab"])), np.float32)
    for row in range(len(features)):
        features[row, data["x_indices"][starts[row] : starts[row + 1]]] = 1
    edges = np.concatenate([data["edge_depends"], data["edge_codepends"]], 1)
    np.savez(
        folder / "packages.npz",
        x=features,
        edge_index=edges.astype(np.int64),
        y=data["label"].astype(np.int64),
        split=data["split"],
    )


def spam(sources: Path, folder: Path) -> None:
    """Write the first 400 characters of mails by split."""
    (folder / "spam").mkdir(exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    with gzip.open(sources / "spam_assassin.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows[row["split"]].append({"text": row["text"][:400].lower(), "label": row["label"]})
    for split, part in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / "spam" / f"{split}.jsonl").write_text(text, encoding="utf-8")


def diamonds(sources: Path, folder: Path) -> None:
    """Write 2,400 / 800 / 4,000 rows with the quality of the cut as label."""
    with (sources / "diamonds.csv").open(encoding="utf-8", newline="") as lines:
        header, *rows = list(csv.reader(lines))
    order = np.random.default_rng(0).permutation(len(rows))
    (folder / "diamonds").mkdir(exist_ok=True)
    for name, start, stop in (("train", 0, 2400), ("validation", 2400, 3200), ("test", 3200, 7200)):
        with (folder / "diamonds" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header[1:])
            writer.writerows(rows[i][1:] for i in order[start:stop])


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
