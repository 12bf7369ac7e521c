"""Student as a folder or a GGUF file, for a server that generates its texts."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from instil.core import Net
from instil.data.pair_tokenizers import tokenizer_of_samples
from instil.experiment.experiment import Experiment

GGUF_TYPE = "f16"
"""Type of the weights in a GGUF file."""


class StudentWriter:
    """Writer of the student, in the format that the name of the path needs.

    Args:
        experiment: experiment of the stage; its data have the tokenizer.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def __call__(self, net: Net, path: Path) -> None:
        """Write the current weights.

        Args:
            net: the student; it is not changed.
            path: GGUF file, or a folder with configuration, weights and tokenizer.

        Raises:
            ValueError: for a model or tokenizer that the format does not support.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        on_cpu = Net(copy.deepcopy(net.model).cpu(), net.call)
        batch = next(iter(self.experiment.loader(self.experiment.splits.validation, shuffle=False)))
        tokenizer = tokenizer_of(self.experiment)
        if path.suffix == ".gguf":
            from instil.export.gguf import to_gguf

            to_gguf(on_cpu, batch, path, tokenizer, GGUF_TYPE)
            return
        from instil.export.transformers import to_standard_model, to_transformers

        if not path.is_dir():
            # The first time, the written student is compared with the model.
            to_transformers(on_cpu, batch, path, tokenizer)
            return
        new = path.with_name(f".{path.name}.new")
        to_standard_model(on_cpu.model).save_pretrained(new)
        # A server may have the old files mapped, so they are replaced and not overwritten.
        for file in new.iterdir():
            if file.suffix == ".safetensors" or file.name.endswith(".index.json"):
                os.replace(file, path / file.name)
        shutil.rmtree(new)


def tokenizer_of(experiment: Experiment) -> Any:
    """Return the tokenizer of the data if it wraps one of the ``tokenizers`` library, else None.

    Args:
        experiment: experiment of a recipe.
    """
    samples: Any = experiment.splits.test
    tokenizer = tokenizer_of_samples(samples)
    if hasattr(tokenizer, "pruned") and getattr(samples, "tokens", None):
        tokenizer = tokenizer.pruned(samples.tokens)
    return tokenizer if hasattr(tokenizer, "inner") else None
