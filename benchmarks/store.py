"""Time of an epoch with recorded teacher outputs relative to an epoch on labels alone.

python benchmarks/store.py [--json] [--rounds 5] [--steps 12]

Both take turns in one process, in processor time; a ratio is the median over rounds.
The student is a residual network for images of 32 x 32 pixels and 100 classes, in batches of 64.
``live`` runs a teacher of three times the depth in every step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from instil import KD, CrossEntropy, Frozen, Net, Offline, Optimization, Teacher, Training, fit
from instil.data.images import ArrayData
from instil.data.loader import Loader
from instil.networks.presets import taps_for
from instil.networks.resnet import resnet
from instil.store.codecs import Codec, encode_outputs
from instil.store.reader import Store, row_checksums
from instil.store.writer import StoreWriter
from instil.teachers.recorded import Recorded

BATCH, CLASSES = 64, 100


def data(steps: int) -> ArrayData:
    """Return labelled noise images for ``steps`` batches."""
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(steps * BATCH, 3, 32, 32, generator=draw)
    return ArrayData(
        image,
        torch.randint(CLASSES, (len(image),), generator=draw),
        [str(index) for index in range(CLASSES)],
    )


def net(depth: int) -> Net:
    """Return a residual network with its default taps."""
    torch.manual_seed(depth)
    model = resnet(CLASSES, depth=depth)
    return Net(model, taps=taps_for(model))


def recorded(samples: ArrayData, teacher: Teacher, codec: Codec, folder: Path) -> Recorded:
    """Return a teacher that reads recorded logits and embeddings."""
    writer = StoreWriter(folder / codec, {})

    def encoded(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = teacher(batch)
        return encode_outputs(
            {"logits": outputs["logits"], "embedding": outputs["embedding"]}, batch, codec
        )

    for _ in writer.record(
        "train", samples.index, 1, lambda *_: Loader(samples, BATCH, shuffle=False), encoded
    ):
        pass
    writer.finish({})
    return Recorded(Store(str(folder / codec)), row_checksums)


def seconds(samples: ArrayData, teacher: Teacher | None) -> float:
    """Return the processor time of one epoch."""
    student = net(1)
    objectives = {"cross_entropy": CrossEntropy()} | (
        {"kd": KD(temperature=4)} if teacher is not None else {}
    )
    scheme = Offline(student, teacher, objectives)
    training = Training(epochs=1, optimizer=Optimization("sgd", {"lr": 0.01}), evaluate_every=1)
    start = time.process_time()
    fit(scheme, Loader(samples, BATCH, views=1), training)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples, teacher = data(options.steps), Frozen(net(3))
    with tempfile.TemporaryDirectory() as folder:
        exact = recorded(samples, teacher, "exact", Path(folder))
        half = recorded(samples, teacher, "float16", Path(folder))
        turns: dict[str, Callable[[], float]] = {
            "alone": lambda: seconds(samples, None),
            "exact": lambda: seconds(samples, exact),
            "float16": lambda: seconds(samples, half),
            "live": lambda: seconds(samples, teacher),
        }
        for turn in turns.values():
            turn()
        rounds = [{name: turn() for name, turn in turns.items()} for _ in range(options.rounds)]
    ratios = {
        f"{name}_ratio": statistics.median(one[name] / one["alone"] for one in rounds)
        for name in ("exact", "float16", "live")
    }
    print(
        json.dumps(ratios, indent=2)
        if options.json
        else "\n".join(f"{name:14} {value:.3f}" for name, value in ratios.items())
    )


if __name__ == "__main__":
    main()
