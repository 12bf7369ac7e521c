"""Worker process of a search: trains the trials of its queue that no other worker trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from instil import recipe as recipes
from instil.experiment.device import on_device_of_recipe
from instil.experiment.experiment import Experiment
from instil.recipe.sections import Recipe
from instil.search.execution import train_if_free
from instil.search.state import read_state
from instil.search.trainer import Trainer
from instil.search.trials import Trial


@on_device_of_recipe
def work(recipe: Recipe, folder: Path, queue: Path) -> None:
    """Train the trials of the queue, each under a lock.

    Args:
        recipe: recipe of the search.
        folder: folder of the search.
        queue: file with the trials.
    """
    torch.set_num_threads(read_state(folder)["num_threads"])
    trainer = Trainer(Experiment.from_recipe(recipe), folder)
    for entry in json.loads(queue.read_text(encoding="utf-8")):
        train_if_free(trainer, Trial(**entry))


if __name__ == "__main__":
    work(recipes.load(Path(sys.argv[1])), Path(sys.argv[1]), Path(sys.argv[2]))
