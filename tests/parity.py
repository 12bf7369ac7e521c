"""Schemes that must end with the same weights however the batch is cut; started on two processes by ``test_parity.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objective, Objectives, Outputs, Schedule, Scheme
from instil.engine import Engine, Optimization, rank
from instil.objectives.features.attention_transfer import AttentionTransfer
from instil.objectives.features.fitnet import FitNet
from instil.objectives.features.review_kd import ReviewKD
from instil.objectives.features.vid import VID
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.labels.label_smoothing import LabelSmoothing
from instil.objectives.logits.dist import DIST
from instil.objectives.logits.dkd import DKD
from instil.objectives.logits.kd import KD
from instil.objectives.logits.logit_mse import LogitMSE
from instil.objectives.logits.nkd import NKD
from instil.objectives.relations.crd import CRD
from instil.objectives.relations.pkt import PKT
from instil.objectives.relations.rkd import RKD
from instil.objectives.relations.similarity_preserving import SimilarityPreserving
from instil.schemes.adversarial import Adversarial
from instil.schemes.ema import Ema
from instil.schemes.mutual import Mutual
from instil.schemes.offline import Offline
from instil.step import train_step
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.train import Training, fit

STEPS = 5


class Block(nn.Module):
    """A residual block, the unit of sharding."""

    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).relu()


class Body(nn.Module):
    """A small net with blocks and a head."""

    def __init__(self, width: int):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(20, width), nn.ModuleList([Block(width), Block(width)]), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def net(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(Body(width), call, {"embedding": "head:in"})


class Pixels(nn.Module):
    """A small convolutional net without BatchNorm; of the 20 numbers it makes a picture of 4 x 5."""

    def __init__(self, width: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(source, target, 3, stride, 1), nn.ReLU())
            for source, target, stride in ((1, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 4, 5)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def pixels(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(Pixels(width), call, {"features": ["stages.0", "stages.1", "stages.2"], "embedding": "head:in"})


def plain() -> Objectives:
    return Objectives({"cross_entropy": CrossEntropy(), "kd": KD()}, {"kd": 0.7})


def on_pixels(weight: float = 1.0, **objectives: Objective) -> Scheme:
    return Offline(pixels(3, 1), Frozen(pixels(5, 2)), Objectives(objectives, dict.fromkeys(objectives, weight)))


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "offline": lambda: Offline(net(16, 1), Frozen(net(32, 2)), Objectives({"cross_entropy": CrossEntropy(), "kd": KD(), "dkd": DKD()})),
    "alone": lambda: Offline(net(16, 1), None, {"cross_entropy": CrossEntropy()}),
    "label_smoothing": lambda: Offline(net(16, 1), None, {"label_smoothing": LabelSmoothing()}),
    "logits": lambda: Offline(
        net(16, 1), Frozen(net(32, 2)), {"nkd": NKD(), "logit_mse": LogitMSE(), "kd": KD(temperature=Schedule(1, 4), standardize=True)}
    ),
    "features": lambda: on_pixels(fitnet=FitNet(), attention_transfer=AttentionTransfer(), vid=VID(), cross_entropy=CrossEntropy()),
    "review": lambda: on_pixels(review_kd=ReviewKD()),
    "queue": lambda: on_pixels(0.1, crd=CRD(dim=8, negatives=16, size=150)),
    "bank": lambda: on_pixels(0.1, crd=CRD(dim=8, negatives=16, size=64, memory="bank")),
    "ensemble": lambda: Offline(net(16, 1), Ensemble([net(32, 2), net(24, 3)]), plain()),
    "mutual": lambda: Mutual(net(16, 1), [net(24, 3), net(8, 4)], plain()),
    "mutual_features": lambda: Mutual(pixels(3, 1), [pixels(4, 3)], {"fitnet": FitNet(), "vid": VID()}),
    "ema": lambda: Ema(net(16, 1), plain(), decay=0.9),
    "adversarial": lambda: Adversarial(net(16, 1), Frozen(net(32, 2)), plain()),
}
COUPLED: dict[str, Callable[[], Scheme]] = {
    "dist": lambda: on_pixels(0.2, dist=DIST()),
    "rkd": lambda: on_pixels(0.02, rkd=RKD()),
    "similarity_preserving": lambda: on_pixels(similarity_preserving=SimilarityPreserving()),
    "pkt": lambda: on_pixels(pkt=PKT()),
    "coupled_mutual": lambda: Mutual(net(16, 1), [net(24, 3)], {"pkt": PKT(), "kd": KD()}),
    "coupled_ema": lambda: Ema(net(16, 1), Objectives({"dist": DIST(), "cross_entropy": CrossEntropy()}, {"dist": Schedule(0, 1)}), 0.9),
}
KEPT = ("ema", "bank", "features", "adversarial", "mutual_features")
"""Schemes whose checkpoints of one process and of two are loaded by the other."""


def batch(seed: int, number: int = 64) -> Batch:
    """Half of the labels are missing, a tenth of the items does not count."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 10, (number,), generator=generator)
    label[torch.rand(number, generator=generator) < 0.5] = -100
    valid = torch.rand(number, generator=generator) < 0.9
    return {"x": torch.randn(number, 20, generator=generator), "label": label, "index": torch.arange(number), "valid": valid}


def cut(whole: Batch, sizes: list[int]) -> list[Batch]:
    return [dict(zip(whole, parts, strict=True)) for parts in zip(*(value.split(sizes) for value in whole.values()), strict=True)]


def train(
    make: Callable[[], Scheme],
    sizes: list[int],
    share: slice = slice(None),
    shard: bool = False,
    save: Path | None = None,
    resume: Path | None = None,
) -> Tensor:
    """All weights and buffers after five steps, this process being given ``share`` of every batch, cut into ``sizes``.

    ``save`` is written after two steps; ``resume`` holds what another run wrote then.
    """
    torch.manual_seed(0)
    scheme = make()
    scheme.prepare(batch(99))
    engine = Engine("cpu", shard=shard, clip=1.0)
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1, "momentum": 0.9}))
    if resume is not None:
        engine.load(scheme, resume)
    for step in range(2 if resume is not None else 0, STEPS):
        clock = {"step": torch.tensor(step), "progress": torch.tensor(step / STEPS), "seed": torch.tensor(0)}
        mine = {key: value[share] for key, value in batch(step).items()}
        train_step(engine, scheme, [part | clock for part in cut(mine, sizes)])
        if save is not None and step == 1:
            engine.save(scheme, save, {})
    return state(scheme)


def state(scheme: Scheme) -> Tensor:
    """All weights and buffers, flat."""
    tensors = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in (*scheme.parameters(), *scheme.buffers())]
    return torch.cat([t.detach().flatten().float() for t in tensors])


def looped(loader: list[Batch], accumulate: int, shard: bool = False) -> Tensor:
    """What ``fit`` makes of a loader."""
    scheme = Offline(net(16, 1), Frozen(net(32, 2)), plain())
    fit(scheme, loader, Training(epochs=2, accumulate=accumulate, device="cpu", optimizer=Optimization("sgd", {"lr": 0.1}), shard=shard))
    return state(scheme)


def pieces() -> list[Batch]:
    """Seven small batches of an epoch."""
    return [part for seed in range(7) for part in [batch(seed, 8)]]


def main(folder: Path, shard: bool) -> dict[str, Tensor]:
    first = rank() == 0
    share = slice(0, 40) if first else slice(40, 64)
    ends = {name: train(make, [20, 20] if first else [23, 1], share, shard) for name, make in SCHEMES.items()}
    ends |= {name: train(make, [40] if first else [24], share, shard) for name, make in COUPLED.items()}
    for name in KEPT:
        ends[f"saved by two/{name}"] = train(SCHEMES[name], [40] if first else [24], share, shard, save=folder / f"two_{name}.pt")
        ends[f"saved by one/{name}"] = train(SCHEMES[name], [40] if first else [24], share, shard, resume=folder / f"one_{name}.pt")
    # global steps of four batches: this rank's two first, then the other's; the second rank runs out
    ends["fit"] = looped([pieces()[i] for i in ((0, 1, 4, 5) if first else (2, 3, 6))], 2, shard)
    return ends


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    Engine("cpu")  # joins the process group
    ends = main(out.parent, sys.argv[2] == "shard")
    if rank() == 0:
        torch.save(ends, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
