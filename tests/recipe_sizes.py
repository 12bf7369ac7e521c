"""Overrides that reduce the data and networks of packaged recipes whose epochs take long."""

from __future__ import annotations

from instil import recipe as recipes
from tests import speech_files

SOLIDS = ["data={name: solids, num_labeled: 60, points: 64}"]
"""Data in place of a file of the user."""
SMALL = {
    "chat": ["data.rows=32", "data.held_out=8"],
    "dense_to_sparse": SOLIDS,
    "views_of_parts": SOLIDS,
    "cross_tokenizer": [
        "data.rows=32",
        "data.held_out=8",
        "teacher.data.rows=32",
        "teacher.data.held_out=8",
    ],
    "minilm_l6": ["data.rows=8", "data.held_out=8", "data.batch_size=4", "data.length=8"],
    "minilm_ranking": [
        "data.rows=16",
        "data.held_out=4",
        "data.num_labeled=4",
        "data.batch_size=4",
        "data.length=8",
        "data.passages=2",
    ],
    "mvd": ["data.frames=2", "data.size=10"],
    "promptable_segmentation": ["data.scenes=60", "data.num_labeled=30"],
    "ranking": ["data.rows=300", "data.num_labeled=100"],
    "pate": ["teacher.num_replicas=2"],
    "pruned": ["train.epochs=2"],
    # A teacher of one epoch solves no sum.
    "verified": ["scheme.verified=false", "scheme.candidates=1"],
    "distil_whisper": ["data.rows=64", "data.max_letters=3"],
    "seq2seq": ["data.rows=64", "data.max_letters=3"],
    "sequence_kd": ["data.rows=64", "data.max_letters=3", "data.num_labeled=32"],
    "remote": ["data.rows=4", "data.held_out=2", "data.length=16"],
    "sentence_embedding": [
        "data.rows=96",
        "data.held_out=8",
        "teacher.data.rows=96",
        "teacher.data.held_out=8",
    ],
    "smollm2_hidden_state": ["objectives.distilbert.layers=[[2, 1], [4, 2], [6, 3]]"],
    "smollm2_on_policy": ["scheme.sampling.min_prompt_tokens=16"],
}
SMALL_SMOLLM2 = [
    "data.rows=4",
    "data.held_out=2",
    "data.length=32",
    "student.changes.depth.layers=6",
]


def small_data(recipe: str) -> list[str]:
    """Return the overrides of a packaged recipe, by the name of its file without suffix."""
    if recipe in speech_files.RECIPES:
        return speech_files.overrides(recipe)
    overrides = list(SMALL.get(recipe, ()))
    if recipe.startswith("smollm2"):
        overrides += SMALL_SMOLLM2
    if recipes.load(recipe).task.name == "diffusion":
        overrides += small_denoisers(recipe)
    return overrides


def small_denoisers(recipe: str) -> list[str]:
    """Return the overrides that make the denoisers of a recipe narrow."""
    config = recipes.load(recipe)
    sides = {"teacher": config.teachers, "student": [config.student]}
    return [
        f"{side}.options.network_options.width=8"
        for side, models in sides.items()
        if any("width" in model.options.get("network_options", {}) for model in models)
    ]
