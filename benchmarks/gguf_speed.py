"""Speed of llama.cpp with students of ``smollm2.py``, relative to the teacher in the same format.

python benchmarks/gguf_speed.py --work FOLDER [--arms depth/kd width/kd] [--rounds 7] [--json FILE]

``FOLDER`` is the work folder of ``smollm2.py``. Teacher and students are written as GGUF files with
16-bit weights and the same vocabulary. In each round, each of them writes the same number of tokens
after the same prompt, on one thread. The speed of a round is that of the server's own clock. The
ratio to the teacher is taken within a round, so that other work of the machine affects both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import smollm2
import xllamacpp

import instil
from instil.experiment.student_writer import StudentWriter
from instil.files.json_files import write_json

RESULT = Path(__file__).with_name("gguf_speed.json")
PROMPT = "def read(path, encoding=None):\n"
NUM_TOKENS = 64


@contextlib.contextmanager
def serving(path: Path, draft: Path | None = None, num_draft_tokens: int = 4) -> Iterator[str]:
    """Start a llama.cpp server with one thread in this process, and yield its address.

    Args:
        path: GGUF file.
        draft: GGUF file of a model that proposes tokens; None: no proposals.
        num_draft_tokens: number of tokens that the draft proposes at a time.
    """
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 512, 1, 0
    parameters.verbosity = -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    if draft is not None:
        options = parameters.speculative.draft
        options.mparams.path = str(draft)
        options.n_max = num_draft_tokens
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        kinds = xllamacpp.common_speculative_type
        parameters.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    server = xllamacpp.Server(parameters)
    yield str(server.listening_address)
    del server


def complete(address: str, prompt: str | list[int]) -> dict[str, Any]:
    """Return the most likely continuation of a prompt, with the server's counts and times."""
    body = {"prompt": prompt, "n_predict": NUM_TOKENS, "temperature": 0, "ignore_eos": True}
    request = urllib.request.Request(
        f"{address}/completion",
        json.dumps(body | {"cache_prompt": False, "return_tokens": True}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def speed(answer: dict[str, Any]) -> float:
    """Return the generated tokens per second of an answer of the server."""
    return float(answer["timings"]["predicted_per_second"])


def write_models(
    measured: dict[str, Any], arms: list[str], work: Path, folder: Path
) -> dict[str, Path]:
    """Write teacher and students as GGUF files, and return their paths by name.

    Args:
        measured: result of ``smollm2.py``, with the best learning rate of each arm.
        arms: names of the students.
        work: folder of their runs.
        folder: folder of the new files.
    """
    settings = argparse.Namespace(**{key: measured[key] for key in smollm2.SETTINGS})
    experiment, teacher = smollm2.load_teacher(settings, work)
    nets = {"teacher": teacher}
    for arm in arms:
        nets[arm] = instil.load(smollm2.folder_of(arm, measured["arms"][arm]["rate"], work)).net
    paths = {name: folder / f"{name.replace('/', '-')}.gguf" for name in nets}
    for name, net in nets.items():
        StudentWriter(experiment)(net, paths[name])
    return paths


def measure(paths: dict[str, Path], num_rounds: int) -> dict[str, dict[str, Any]]:
    """Return bytes, median speed, and median and range of the ratio to the teacher, by name."""
    speeds: dict[str, list[float]] = {name: [] for name in paths}
    with contextlib.ExitStack() as stack:
        addresses = {name: stack.enter_context(serving(path)) for name, path in paths.items()}
        for address in addresses.values():
            speed(complete(address, PROMPT))  # reads the file for the first time
        for _ in range(num_rounds):
            for name, address in addresses.items():
                speeds[name].append(speed(complete(address, PROMPT)))
    table = {}
    for name, values in speeds.items():
        ratios = np.divide(values, speeds["teacher"])
        table[name] = {
            "bytes": paths[name].stat().st_size,
            "tokens_per_second": float(np.median(values)),
            "to_teacher": [float(f(ratios)) for f in (np.median, np.min, np.max)],
        }
    return table


def main() -> None:
    """Measure the models of the command line, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of smollm2.py")
    parser.add_argument("--arms", nargs="+", default=["depth/kd", "width/kd"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    measured = json.loads(smollm2.RESULT.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_models(measured, options.arms, options.work, Path(folder))
        models = measure(paths, options.rounds)
    write_json(options.json, {"rounds": options.rounds, "tokens": NUM_TOKENS, "models": models})


if __name__ == "__main__":
    main()
