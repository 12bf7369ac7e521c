"""Fingerprint of the package's numbers: proof that a change of names or layout changes none.

``python -m tests.fingerprint record FILE`` writes hashes of three kinds of numbers, and
``python -m tests.fingerprint compare FILE`` computes them again and lists the differences:

- ``golden``: loss, gradients and further outputs of every golden case;
- ``parity``: final weights of every scheme in the parity table, trained in one process;
- ``recipes``: weights of the student of every packaged recipe after two steps with seed 0.

``compare`` ignores names that the file does not have. ``--only golden`` (or ``parity``,
``recipes``) restricts both commands to one kind. The hashes hold for one machine and one version
of torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from tests.recipe_sizes import small_data

KINDS = ("golden", "parity", "recipes")


def tensor_hash(tensors: Iterable[Tensor]) -> str:
    """Hash of shapes, types and bits of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def golden_hashes() -> dict[str, str]:
    """Hash of all compared tensors of each golden case."""
    from tests.golden import cases

    hashes = {}
    compared: list[Tensor] = []
    relative_error = cases.relative_error

    def record(value: Tensor, reference: Tensor) -> float:
        compared.append(value)
        return relative_error(value, reference)

    cases.relative_error = record
    try:
        for result in cases.run(cases.HERE / "cases"):
            hashes[result.case] = f"{result.status} {tensor_hash(compared)}"
            compared.clear()
    finally:
        cases.relative_error = relative_error
    return hashes


def parity_hashes() -> dict[str, str]:
    """Hash of the final weights of each scheme of the parity table."""
    from tests import parity

    schemes = {**parity.SCHEMES, **parity.COUPLED}
    return {
        name: tensor_hash([parity.train(make, [64], slice(0, 64))])
        for name, make in schemes.items()
    }


def recipe_hashes() -> dict[str, str]:
    """Hash of the student of each packaged recipe after two steps; recipes with a server are left
    out.
    """
    from instil.recipe.packaged import packaged_recipes

    hashes = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["INSTIL_CACHE"] = f"{folder}/cache"
        for path in sorted(packaged_recipes().values()):
            text = path.read_text()
            if "model: remote" in text:
                continue
            try:
                hashes[path.stem] = _recipe_hash(path, Path(folder) / path.stem)
            except Exception as error:
                hashes[path.stem] = f"{type(error).__name__}: {error}"[:200]
            print(path.stem, hashes[path.stem], file=sys.stderr, flush=True)
    return hashes


def _recipe_hash(path: Path, folder: Path) -> str:
    import yaml
    from rich.console import Console
    from safetensors.torch import load_file

    from instil import recipe as recipes
    from instil.plan.run import run

    raw = yaml.safe_load(path.read_text())
    two_steps = ["epochs=null", "steps=2"]
    overrides = ["seeds=[0]", "baselines=[]", "export=false", *small_data(path.stem)]
    overrides += [f"train.{option}" for option in two_steps if "train" in raw]
    overrides += [f"teacher_train.{option}" for option in two_steps if "teacher_train" in raw]
    for index, stage in enumerate(raw.get("stages", [])):
        if "train" in stage:
            overrides += [f"stages.{index}.train.{option}" for option in two_steps]
    result = run(recipes.load(path, overrides), folder, None, Console(quiet=True))
    return tensor_hash(load_file(result / "student.safetensors").values())


HASHES: dict[str, Callable[[], dict[str, str]]] = {
    "golden": golden_hashes,
    "parity": parity_hashes,
    "recipes": recipe_hashes,
}


def main(arguments: list[str]) -> int:
    """Record or compare; 1 if a hash differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.fingerprint")
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", choices=KINDS, action="append")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    now = {kind: HASHES[kind]() for kind in options.only or KINDS}
    if options.command == "record":
        before = json.loads(options.file.read_text()) if options.file.exists() else {}
        options.file.write_text(json.dumps(before | now, indent=1))
        return 0
    recorded = json.loads(options.file.read_text())
    different = 0
    for kind, hashes in now.items():
        for name, expected in recorded[kind].items():
            if hashes.get(name) != expected:
                different += 1
                print(f"{kind} {name}: {expected} -> {hashes.get(name)}")
    print(f"{different} differences in {sum(map(len, now.values()))} hashes")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
