"""Worker process of a search: trains the trials of its queue that no other worker trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from instil import recipe as recipes
from instil.experiment.device import on_device_of_recipe
from instil.experiment.experiment import Experiment
from instil.files.locks import FileLock
from instil.recipe.sections import Recipe
from instil.search.execution import QUEUE
from instil.search.state import read_state
from instil.search.trainer import Trainer
from instil.search.trials import Trial


@on_device_of_recipe
def work(recipe: Recipe, folder: Path) -> None:
    """Train the trials of the queue, each under a lock.

    Args:
        recipe: recipe of the search.
        folder: folder of the search.
    """
    torch.set_num_threads(read_state(folder)["num_threads"])
    trainer = Trainer(Experiment.from_recipe(recipe), folder)
    for entry in json.loads((folder / QUEUE).read_text(encoding="utf-8")):
        trial = Trial(**entry)
        lock = FileLock(folder / f"work/{trial.key}.lock")
        # Locked by another worker: that one trains it.
        if not lock.try_acquire():
            continue
        try:
            trainer.train(trial)
        finally:
            lock.release()


if __name__ == "__main__":
    work(recipes.load(Path(sys.argv[1])), Path(sys.argv[1]))
