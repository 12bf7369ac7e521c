"""Time an epoch of a student that learns from recorded answers against an epoch of the same student
on its labels alone.

python benchmarks/store.py [--json] [--rounds 5] [--steps 12]

Both take turns, in one process and in processor time (other work on the machine does not count); a
ratio is the median over rounds. The student is a residual net on images of 32 x 32 with 100
classes, in batches of 64. ``live`` asks a teacher of three times the depth in every step.
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
    """Noise with a label, of so many batches."""
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(steps * BATCH, 3, 32, 32, generator=draw)
    return ArrayData(
        image,
        torch.randint(CLASSES, (len(image),), generator=draw),
        [str(number) for number in range(CLASSES)],
    )


def net(depth: int) -> Net:
    """A residual net with the taps of its family."""
    torch.manual_seed(depth)
    model = resnet(CLASSES, depth=depth)
    return Net(model, taps=taps_for(model))


def recorded(samples: ArrayData, teacher: Teacher, codec: Codec, folder: Path) -> Recorded:
    """The teacher's logits and embedding, on disk."""
    writer = StoreWriter(folder / codec, {})

    def answer(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = teacher(batch)
        return encode_outputs(
            {"logits": outputs["logits"], "embedding": outputs["embedding"]}, batch, codec
        )

    for _ in writer.record(
        "train", samples.index, 1, lambda *_: Loader(samples, BATCH, shuffle=False), answer
    ):
        pass
    writer.finish({})
    return Recorded(Store(str(folder / codec)), row_checksums)


def seconds(samples: ArrayData, teacher: Teacher | None) -> float:
    """Processor time of one epoch."""
    student = net(1)
    objectives = {"cross_entropy": CrossEntropy()} | (
        {"kd": KD(temperature=4)} if teacher is not None else {}
    )
    scheme = Offline(student, teacher, objectives)
    training = Training(epochs=1, optimizer=Optimization("sgd", {"lr": 0.01}), evaluate_every=1)
    began = time.process_time()
    fit(scheme, Loader(samples, BATCH, views=1), training)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description="An epoch from recorded answers against one on labels alone."
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    samples, teacher = data(given.steps), Frozen(net(3))
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
        rounds = [{name: turn() for name, turn in turns.items()} for _ in range(given.rounds)]
    ratios = {
        f"{name}_ratio": statistics.median(one[name] / one["alone"] for one in rounds)
        for name in ("exact", "float16", "live")
    }
    print(
        json.dumps(ratios, indent=2)
        if given.json
        else "\n".join(f"{name:14} {value:.3f}" for name, value in ratios.items())
    )


if __name__ == "__main__":
    main()
