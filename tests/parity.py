"""Schemes that end with the same weights for every split of the batch.

``test_parity.py`` starts this module on two processes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instil import catalogue
from instil.balances.gradient_norm import GradientNorm
from instil.balances.uncertainty import Uncertainty
from instil.capabilities import GeneratesText
from instil.catalogue.signatures import parameters
from instil.core import Balance, Batch, Card, Net, Objective, Objectives, Outputs, Schedule, Scheme
from instil.engine import Engine, Optimization, rank
from instil.items.prefixed_rows import REJECTED
from instil.networks.latent_neighbours import LatentNeighbours
from instil.networks.slimmable_cnn import slimmable_cnn
from instil.objectives.features.attention_transfer import AttentionTransfer
from instil.objectives.features.fitnet import FitNet
from instil.objectives.features.mvd import MVD
from instil.objectives.features.norm import NORM
from instil.objectives.features.simkd import SimKD
from instil.objectives.features.simreg import SimReg
from instil.objectives.features.vid import VID
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.labels.label_smoothing import LabelSmoothing
from instil.objectives.logits.alphanet import AlphaNet
from instil.objectives.logits.dino import DINO
from instil.objectives.logits.dist import DIST
from instil.objectives.logits.dkd import DKD
from instil.objectives.logits.forward_kl import ForwardKL
from instil.objectives.logits.jsd import JSD
from instil.objectives.logits.kd import KD
from instil.objectives.logits.logit_mse import LogitMSE
from instil.objectives.logits.ps_kd import PSKD
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.objectives.relations.crd import CRD
from instil.objectives.relations.pkt import PKT
from instil.objectives.relations.sskd import SSKD
from instil.roles import SHARED_ROLES, DenseHead, QueryDecoder
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.adversarial.boundary_samples import BoundarySamples
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.teacher_sequences import TeacherSequenceScheme
from instil.schemes.bases.two_tasks import TwoTasks
from instil.schemes.data_free.cmi import CMI
from instil.schemes.data_free.dafl import DAFL
from instil.schemes.data_free.deep_inversion import DeepInversion
from instil.schemes.data_free.dfad import DFAD
from instil.schemes.data_free.dfq import DFQ
from instil.schemes.data_free.fast_data_free import FastDataFree
from instil.schemes.data_free.zskt import ZSKT
from instil.schemes.language.distil_whisper import DistilWhisper
from instil.schemes.language.distillm import DistiLLM
from instil.schemes.language.distillm2 import DistiLLM2
from instil.schemes.language.dpkd import DPKD
from instil.schemes.language.dpkd_written import DPKDWritten
from instil.schemes.language.kdrl import KDRL
from instil.schemes.language.minillm import MiniLLM
from instil.schemes.language.on_policy import OnPolicy
from instil.schemes.language.privileged_context import PrivilegedContext
from instil.schemes.language.rationale_consistency import RationaleConsistency
from instil.schemes.language.sequence_kd import SequenceKD
from instil.schemes.language.sequence_level import SequenceLevel
from instil.schemes.language.speculative import Speculative
from instil.schemes.language.step_by_step import StepByStep
from instil.schemes.offline.cold_brew import ColdBrew
from instil.schemes.offline.der import DER
from instil.schemes.offline.dphubert import DPHuBERT
from instil.schemes.offline.fcfd import FCFD
from instil.schemes.offline.filter_kd import FilterKD
from instil.schemes.offline.folded_transform import FoldedTransform
from instil.schemes.offline.masked_images import MaskedImages
from instil.schemes.offline.masked_video import MaskedVideo
from instil.schemes.offline.momentum_contrast import MomentumContrast
from instil.schemes.offline.nosmog import NOSMOG
from instil.schemes.offline.offline import Offline
from instil.schemes.offline.pate import PATE
from instil.schemes.offline.prompt_loop import PromptLoop
from instil.schemes.offline.region_crops import RegionCrops
from instil.schemes.offline.reused_classifier import ReusedClassifier
from instil.schemes.offline.several_students import SeveralStudents
from instil.schemes.offline.sftn import SFTN
from instil.schemes.offline.spot_adaptive import SpotAdaptive
from instil.schemes.offline.views import Views
from instil.schemes.online.ffl import FFL
from instil.schemes.online.kdcl import KDCL
from instil.schemes.online.mutual import Mutual
from instil.schemes.online.okddip import OKDDip
from instil.schemes.online.one import ONE
from instil.schemes.online.pcl import PCL
from instil.schemes.robust.adaad import AdaAD
from instil.schemes.robust.adversarial_training import AdversarialTraining
from instil.schemes.robust.ard import ARD
from instil.schemes.robust.iad import IAD
from instil.schemes.robust.iad_ii import IADII
from instil.schemes.robust.rslad import RSLAD
from instil.schemes.self_distillation.byot import BYOT
from instil.schemes.self_distillation.deep_supervision import DeepSupervision
from instil.schemes.self_distillation.dino import DINO as DINOScheme
from instil.schemes.self_distillation.dks import DKS
from instil.schemes.self_distillation.ema import Ema
from instil.schemes.self_distillation.frskd import FRSKD
from instil.schemes.self_distillation.mixskd import MixSKD
from instil.schemes.self_distillation.previous_epoch import PreviousEpoch
from instil.schemes.self_distillation.sandwich import Sandwich
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.teachers.private_votes import PrivateVotes
from instil.testing.recipes import learns_from_model_loss_role
from instil.testing.samples import sample_outputs
from instil.testing.structures import named_tensors
from instil.training.fit import Training, fit
from instil.training.step import train_step
from instil.weightings.difficulty import Difficulty
from instil.weightings.entropy import Entropy
from tests import parity_diffusion
from tests.schemes import pairs as sequence_pairs
from tests.schemes import texts

STEPS = 5


class Block(nn.Module):
    """Residual block, the unit of sharding."""

    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).relu()


class Body(nn.Module):
    """Small network with blocks and a head."""

    def __init__(self, width: int):
        super().__init__()
        self.stem, self.blocks, self.head = (
            nn.Linear(20, width),
            nn.ModuleList([Block(width), Block(width)]),
            nn.Linear(width, 10),
        )

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


def viewed(width: int, seed: int) -> Net:
    """Return a network on the image, 16 of the 20 numbers, which distinguishes rotated images."""
    one = net(width, seed)
    return Net(
        one.model,
        lambda model, batch: {"logits": model(F.pad(batch["image"].flatten(1), (0, 4)))},
        one.taps,
    )


def clipped(width: int, seed: int) -> Net:
    """Return a network on clips of two frames, 16 of the 20 numbers, with one level of features."""
    torch.manual_seed(seed)
    stage = nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.ReLU())
    model = nn.Sequential(stage, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(width, 10))
    return Net(
        model, lambda model, batch: {"logits": model(batch["video"])}, taps={"features": ["0"]}
    )


class Maker(nn.Module):
    """Generator of images with a square of 16 numbers from codes of four."""

    latent = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 16), Block(16), nn.Linear(16, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))
        )

    def forward(self, codes: Tensor) -> Tensor:
        image: Tensor = self.layers(codes)
        return image


def without_data(kind: Callable[..., Scheme], **options: Any) -> Callable[[], Scheme]:
    """Return a scheme with a generator, without terms that couple the samples of a batch."""

    def make() -> Scheme:
        torch.manual_seed(3)
        return kind(viewed(16, 1), Frozen(viewed(32, 2)), {"kd": KD()}, Net(Maker()), **options)

    return make


RECOVERED = {"memory": 96, "every": 2, "iterations": 2, "statistics_weight": 0.0}


class SameViews(Objective):
    """Mean squared difference of the logits of two views; it does not couple the samples."""

    card = Card("Views regress the teacher's")
    needs: ClassVar = {"student": (("view_logits",),), "teacher": (("view_logits",),)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        distance: Tensor = (student["view_logits"] - teacher["view_logits"]).square()
        return distance.mean((1, 2))


class Pixels(nn.Module):
    """Small convolutional network without BatchNorm on images of 4 x 5 from the 20 numbers."""

    def __init__(self, width: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(source, target, 3, stride, 1), nn.ReLU())
            for source, target, stride in (
                (1, width, 1),
                (width, 2 * width, 2),
                (2 * width, 2 * width, 1),
            )
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 4, 5)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def cold_brew() -> ColdBrew:
    torch.manual_seed(1)
    model = LatentNeighbours(10, 20, 64, 8, 32, 3)
    student = Net(model, lambda model, batch: dict(model(batch["x"])))
    return ColdBrew(student, Frozen(net(32, 2)), plain())


def votes() -> PrivateVotes:
    teacher = PrivateVotes([net(8, seed) for seed in range(5)], noise=1.0)
    teacher.precompute([batch(0)])
    return teacher


def writes() -> Frozen:
    return Frozen(texts.net(seed=1))


def pixels(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(
        Pixels(width),
        call,
        {
            "features": ["stages.0", "stages.1", "stages.2"],
            "embedding": "head:in",
            "head": "head:weight",
        },
    )


class Roles(nn.Module):
    """Network that returns every role of sample outputs as a linear function of the 20 numbers.

    Several members and all shapes are supported.
    """

    def __init__(self, samples: Outputs):
        super().__init__()
        self.members = nn.ModuleList(Roles(member) for member in samples.get("members", ()))
        samples = {role: value for role, value in samples.items() if role != "members"}
        self.shapes = {
            name: tensor.shape[1:]
            for name, tensor in named_tensors(samples)
            if name.partition(".")[0] not in SHARED_ROLES
        }
        self.tuples = {
            role: structure(value) for role, value in samples.items() if isinstance(value, tuple)
        }
        self.heads = {
            role: value
            for role, value in samples.items()
            if isinstance(value, (DenseHead, QueryDecoder))
        }
        self.layers = nn.ModuleDict(
            {
                name.replace(".", "_"): nn.Linear(20, shape.numel())
                for name, shape in self.shapes.items()
            }
        )
        shared = {role: value for role, value in samples.items() if role in SHARED_ROLES}
        self.shared = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(tensor) for name, tensor in named_tensors(shared)}
        )

    def forward(self, x: Tensor) -> Outputs:
        outputs: dict[str, list[Tensor]] = {}
        for name, shape in self.shapes.items():
            value = self.layers[name.replace(".", "_")](x).view(-1, *shape)
            role = name.partition(".")[0]
            outputs.setdefault(role, []).append(
                value.softmax(-1) if role.endswith("attentions") else value
            )
        for name, parameter in self.shared.items():
            outputs.setdefault(name.rpartition("_")[0], []).append(parameter.view_as(parameter))
        roles = {
            role: refilled(self.tuples[role], iter(values)) if role in self.tuples else values[0]
            for role, values in outputs.items()
        }
        roles |= self.heads
        return roles | (
            {"members": tuple(member(x) for member in self.members)} if len(self.members) else {}
        )


def structure(value: Any) -> Any:
    """Nested tuples with None in the place of every tensor."""
    return tuple(map(structure, value)) if isinstance(value, tuple) else None


def refilled(places: Any, values: Iterator[Tensor]) -> Any:
    """Nested tuples with the next value in every place."""
    if places is None:
        return next(values)
    return tuple(refilled(part, values) for part in places)


def slimmable() -> Net:
    """Return a supernet on an image of 4 x 5 from the 20 numbers."""
    torch.manual_seed(1)
    model = slimmable_cnn(10, width=4, stages=2)
    return Net(model, lambda net, batch: {"logits": net(batch["x"].view(-1, 1, 4, 5))})


STEEP = ("kdsvd", "scale_invariant_log")
"""Losses whose gradient magnifies rounding: close singular values, logarithms of small depths."""


def on_roles(name: str, **options: Any) -> Callable[[], Scheme]:
    """Return a scheme with one objective of the catalogue and memories for the 64 samples."""
    kind = catalogue.find("objective", name)
    for option, parameter in parameters(kind).items():
        if isinstance(parameter.default, int) and parameter.default > 1000:
            options.setdefault(option, 64)

    def make() -> Scheme:
        nets = []
        sides = dict(
            zip(("student", "teacher"), sample_outputs(2, task=kind.card.tasks[0]), strict=False)
        )
        if learns_from_model_loss_role(name):
            sides["student"]["loss"] = sides["student"]["logits"].mean(-1)
        for seed, side in enumerate(sides):
            torch.manual_seed(seed)
            nets.append(Net(Roles(sides[side]), lambda model, batch: model(batch["x"])))
        return Offline(
            nets[0],
            Frozen(nets[1]),
            Objectives({name: kind(**options)}, {name: 0.01 if name in STEEP else 0.1}),
        )

    return make


def plain() -> Objectives:
    return Objectives({"cross_entropy": CrossEntropy(), "kd": KD()}, {"kd": 0.7})


def differentiated(name: str) -> Scheme:
    return on_pixels(0.1, **{name: catalogue.find("objective", name)()})


def balanced(balance: Balance) -> Scheme:
    return Offline(
        pixels(3, 1),
        Frozen(pixels(5, 2)),
        Objectives(
            {"cross_entropy": CrossEntropy(), "kd": KD(), "fitnet": FitNet()}, balance=balance
        ),
    )


def on_pixels(weight: float = 1.0, **objectives: Objective) -> Scheme:
    return Offline(
        pixels(3, 1),
        Frozen(pixels(5, 2)),
        Objectives(objectives, dict.fromkeys(objectives, weight)),
    )


def spotted() -> Scheme:
    """The policy distils few outputs at first, so that it is pushed."""
    parts = {
        "cross_entropy": CrossEntropy(),
        "kd": KD(),
        "shallow": FitNet(pairs=[[0, 0]]),
        "deep": FitNet(pairs=[[2, 2]]),
    }
    return SpotAdaptive(pixels(3, 1), Frozen(pixels(5, 2)), parts, prior=-2.0, balance=1.0)


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "offline": lambda: Offline(
        net(16, 1),
        Frozen(net(32, 2)),
        Objectives({"cross_entropy": CrossEntropy(), "kd": KD(), "dkd": DKD()}),
    ),
    "alone": lambda: Offline(net(16, 1), None, {"cross_entropy": CrossEntropy()}),
    "label_smoothing": lambda: Offline(net(16, 1), None, {"label_smoothing": LabelSmoothing()}),
    "scheduled": lambda: Offline(
        net(16, 1), Frozen(net(32, 2)), {"kd": KD(temperature=Schedule(1, 4), standardize=True)}
    ),
    "features": lambda: on_pixels(fitnet=FitNet(), vid=VID(), cross_entropy=CrossEntropy()),
    "bank": lambda: on_pixels(0.1, crd=CRD(dim=8, negatives=16, size=64, memory="bank")),
    "weighted": lambda: Offline(
        net(16, 1),
        Frozen(net(32, 2)),
        Objectives(
            {"kd": KD(), "fit": LogitMSE()}, sample_weights={"kd": Entropy(), "fit": Difficulty()}
        ),
    ),
    "balanced": lambda: balanced(GradientNorm(role="features")),
    "uncertain": lambda: balanced(Uncertainty()),
    "ensemble": lambda: Offline(net(16, 1), Ensemble([net(32, 2), net(24, 3)]), plain()),
    "mutual": lambda: Mutual(net(16, 1), [net(24, 3), net(8, 4)], plain()),
    "mutual_sequential": lambda: Mutual(
        net(16, 1), [net(24, 3), net(8, 4)], plain(), others="probabilities", sequential=True
    ),
    "mutual_features": lambda: Mutual(
        pixels(3, 1), [pixels(4, 3)], {"fitnet": FitNet(), "vid": VID()}
    ),
    "mutual_averages": lambda: Mutual(net(16, 1), [net(24, 3)], plain(), ema=0.9),
    "kdcl": lambda: KDCL(net(16, 1), [net(24, 3), net(8, 4)], plain()),
    "kdcl_general": lambda: KDCL(net(16, 1), [net(24, 3)], plain(), "general", 0.5),
    "byot": lambda: BYOT(pixels(3, 1), plain(), 0.1),
    "dks": lambda: DKS(pixels(3, 1), plain()),
    "mixskd": lambda: MixSKD(pixels(3, 1), {"cross_entropy": CrossEntropy(), "kd": KD()}),
    "deep_supervision": lambda: DeepSupervision(pixels(3, 1), {"cross_entropy": CrossEntropy()}),
    "frskd": lambda: FRSKD(
        pixels(3, 1),
        {"cross_entropy": CrossEntropy(), "kd": KD(), "attention_transfer": AttentionTransfer()},
    ),
    "sftn": lambda: SFTN(pixels(4, 1), {"cross_entropy": CrossEntropy()}, branch=pixels(3, 2)),
    "one": lambda: ONE(pixels(3, 1), plain()),
    "okddip": lambda: OKDDip(pixels(3, 1), plain()),
    "ffl": lambda: FFL(pixels(3, 1), plain()),
    "pcl": lambda: PCL(pixels(3, 1), plain(), decay=0.6),
    "filter_kd": lambda: FilterKD(
        net(16, 1), {"cross_entropy": CrossEntropy()}, smoothing=0.3, num_samples=64
    ),
    "sandwich": lambda: Sandwich(
        slimmable(), {"cross_entropy": CrossEntropy(), "alphanet": AlphaNet()}
    ),
    "ema": lambda: Ema(net(16, 1), plain(), decay=0.9),
    "previous_epoch": lambda: PreviousEpoch(net(16, 1), {"ps_kd": PSKD(alpha=0.5)}),
    "crops": lambda: DINOScheme(
        viewed(16, 1), {"dino": DINO()}, prototypes=16, hidden=16, narrow=8, momentum=0.9
    ),
    "momentum_contrast": lambda: MomentumContrast(
        viewed(16, 1), Frozen(viewed(32, 2)), {"simreg": SimReg(layers=0)}, size=96, momentum=0.9
    ),
    "several_students": lambda: SeveralStudents(
        net(16, 1), Frozen(net(32, 2)), [net(24, 3)], plain()
    ),
    "masked_images": lambda: MaskedImages(
        pixels(3, 1),
        Frozen(pixels(4, 2)),
        {"kd": KD(), "attention_transfer": AttentionTransfer(), "cross_entropy": CrossEntropy()},
        patch=1,
    ),
    "masked_video": lambda: MaskedVideo(
        clipped(3, 1),
        Frozen(clipped(4, 2)),
        {"mvd": MVD(), "kd": KD(), "cross_entropy": CrossEntropy()},
        ratio=0.5,
        patch=1,
    ),
    "pate": lambda: PATE(net(16, 1), votes(), {"cross_entropy": CrossEntropy()}),
    "dphubert": lambda: DPHuBERT(net(16, 1), Frozen(net(32, 2)), plain()),
    "sequence_kd": lambda: SequenceKD(
        sequence_pairs.net(8),
        Frozen(sequence_pairs.net(8, 1)),
        {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()},
        interpolate=True,
    ),
    "distil_whisper": lambda: DistilWhisper(
        sequence_pairs.net(8),
        Frozen(sequence_pairs.net(8, 1)),
        {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()},
        max_error_rate=1.0,
    ),
    "fcfd": lambda: FCFD(pixels(3, 1), Frozen(pixels(5, 2)), plain(), appearance_weight=0.1),
    "cold_brew": cold_brew,
    "der": lambda: DER(net(16, 1), {"cross_entropy": CrossEntropy()}, size=100),
    "nosmog": lambda: NOSMOG(net(16, 1), Frozen(net(32, 2)), plain()),
    "reused_classifier": lambda: ReusedClassifier(
        pixels(3, 1), Frozen(pixels(5, 2)), {"simkd": SimKD(), "cross_entropy": CrossEntropy()}
    ),
    "folded_transform": lambda: FoldedTransform(
        pixels(3, 1), Frozen(pixels(5, 2)), {"norm": NORM(), "cross_entropy": CrossEntropy()}
    ),
    "adversarial": lambda: Adversarial(net(16, 1), Frozen(net(32, 2)), plain()),
    "adversarial_maps": lambda: Adversarial(
        pixels(3, 1), Frozen(pixels(5, 2)), plain(), role="features", condition="label", penalty=1.0
    ),
    "ard": lambda: ARD(
        viewed(16, 1),
        Frozen(viewed(32, 2)),
        {"cross_entropy": CrossEntropy()},
        temperature=4.0,
        attack_steps=2,
    ),
    "rslad": lambda: RSLAD(viewed(16, 1), Frozen(viewed(32, 2)), {"kd": KD()}, attack_steps=2),
    "adaad": lambda: AdaAD(viewed(16, 1), Frozen(viewed(32, 2)), {"kd": KD()}, attack_steps=2),
    "iad": lambda: IAD(
        viewed(16, 1),
        Frozen(viewed(32, 2)),
        {"cross_entropy": CrossEntropy()},
        trusting=0.0,
        attack_steps=2,
    ),
    "iad_ii": lambda: IADII(
        viewed(16, 1),
        Ensemble([viewed(32, 2), viewed(24, 3)]),
        {"cross_entropy": CrossEntropy()},
        trusting=0.0,
        attack_steps=2,
    ),
    "adversarial_training": lambda: AdversarialTraining(
        viewed(16, 1), {"cross_entropy": CrossEntropy()}, attack_steps=2
    ),
    "deep_inversion": lambda: DeepInversion(
        viewed(16, 1),
        Frozen(viewed(32, 2)),
        plain(),
        memory=96,
        every=2,
        iterations=3,
        statistics_weight=0.0,
        competition_weight=1.0,
    ),
    "zskt": without_data(ZSKT, student_steps=2),
    "zskt_memory": without_data(ZSKT, student_steps=1, memory=96),
    "dafl": without_data(DAFL, balance=0.0),
    "dfad": without_data(DFAD, student_steps=2),
    "dfq": without_data(DFQ, alpha=0.0),
    "cmi": without_data(CMI, contrast_weight=0.0, **RECOVERED),
    "fast_data_free": without_data(FastDataFree, **RECOVERED),
    "boundary_samples": lambda: BoundarySamples(
        viewed(16, 1), Frozen(viewed(32, 2)), plain(), share=1.0, attack_steps=2
    ),
    "spot_adaptive": spotted,
    "step_by_step": lambda: StepByStep(
        texts.net(), None, {"cross_entropy": CrossEntropy()}, rationale_weight=0.5
    ),
    "rationale_consistency": lambda: RationaleConsistency(
        texts.net(), None, {"cross_entropy": CrossEntropy()}, counterfactual_weight=0.5
    ),
    "dpkd": lambda: DPKD(
        texts.net(),
        Frozen(texts.net(16, 1)),
        {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()},
    ),
    "views": lambda: Views(
        viewed(16, 1),
        Frozen(viewed(32, 2)),
        {"views": SameViews(), "kd": KD(), "cross_entropy": CrossEntropy()},
    ),
}
COUPLED: dict[str, Callable[[], Scheme]] = {
    "coupled_mutual": lambda: Mutual(net(16, 1), [net(24, 3)], {"pkt": PKT(), "kd": KD()}),
    "coupled_views": lambda: Views(
        viewed(16, 1), Frozen(viewed(32, 2)), {"sskd": SSKD(), "cross_entropy": CrossEntropy()}
    ),
    "coupled_ema": lambda: Ema(
        net(16, 1),
        Objectives({"dist": DIST(), "cross_entropy": CrossEntropy()}, {"dist": Schedule(0, 1)}),
        0.9,
    ),
}
WRITING: dict[str, Callable[[], Scheme]] = {
    "on_policy": lambda: OnPolicy(texts.net(), writes(), {"jsd": JSD()}, 0.6, texts.SAMPLING),
    "sequence_level": lambda: SequenceLevel(
        texts.net(), writes(), {"cross_entropy": CrossEntropy()}, texts.GREEDY
    ),
    "speculative": lambda: Speculative(texts.net(), writes(), {"jsd": JSD()}, 3, texts.SAMPLING),
    "minillm": lambda: MiniLLM(
        texts.net(), writes(), {"reverse_kl": ReverseKL()}, sampling=texts.SAMPLING
    ),
    "kdrl": lambda: KDRL(
        texts.net(),
        writes(),
        {"reverse_kl": ReverseKL()},
        reward="token_accuracy",
        sampling=texts.SAMPLING,
    ),
    "distillm": lambda: DistiLLM(
        texts.net(),
        writes(),
        {"jsd": JSD()},
        memory=96,
        initial_prob=0.7,
        held_out=0.2,
        every=2,
        sampling=texts.SAMPLING,
    ),
    "distillm2": lambda: DistiLLM2(
        texts.net(), writes(), {"cross_entropy": CrossEntropy()}, sampling=texts.SAMPLING
    ),
    "dpkd_written": lambda: DPKDWritten(
        texts.net(), writes(), {"cross_entropy": CrossEntropy()}, sampling=texts.SAMPLING
    ),
    "privileged_context": lambda: PrivilegedContext(
        texts.informed(), None, {"jsd": JSD()}, "average", 0.9, 0.6, texts.SAMPLING
    ),
}
"""Schemes on texts that are written during training."""
SCHEMES |= WRITING | parity_diffusion.SCHEMES
for method in catalogue.names("objective"):
    objective = catalogue.find("objective", method)()
    if (
        objective.card.tasks[0] != "node_classification"
    ):  # a graph is one batch, which no cut goes through
        # where one role is differentiated by another, they must depend on each other
        make = (
            functools.partial(differentiated, method)
            if objective.needs_input_grad
            else on_roles(method)
        )
        (COUPLED if objective.couples else SCHEMES)[method] = make
WHOLE = (
    "cold_brew",
    "sandwich",
    *parity_diffusion.WHOLE,
    "sequence_kd",
    "distil_whisper",
    "dphubert",
    "adversarial_maps",
    "balanced",
    "camkd",
    "jacobian",
    "lwm",
    "reused_classifier",
    "folded_transform",
)
"""Schemes that cannot be sharded."""
KEPT = ("ema", "bank", "features", "adversarial", "mutual_features", "balanced")
"""Schemes whose checkpoints of one process and of two are loaded by the other."""


def batch(seed: int, size: int = 64, task: str = "classification") -> Batch:
    """Return a batch; half of the labels are missing, a tenth of the items does not count."""
    if task == "writing":
        return texts.with_hints(seed, size)
    if task.startswith("two_tasks/"):
        return texts.two_tasks(seed, size, task.removeprefix("two_tasks/"))
    if task == "teacher_sequences":
        return sequence_pairs.pairs(seed, size)
    if task == "denoisers":
        return parity_diffusion.images(seed, size)
    if task == "prompts":
        return parity_diffusion.prompts(seed, size)
    if task == "regions":
        return parity_diffusion.regions(seed, size)
    generator = torch.Generator().manual_seed(seed)
    _, _, sample_batch = sample_outputs(size, seed, task=task)
    label = sample_batch["label"]
    label = label.masked_fill(torch.rand(label.shape, generator=generator) < 0.5, -100)
    valid = torch.rand(label.shape, generator=generator) < 0.9
    more = {key: value for key, value in sample_batch.items() if value.ndim}
    x = torch.randn(size, 20, generator=generator)
    partner = torch.randperm(size, generator=torch.Generator().manual_seed(seed + 1))
    return {
        "x": x,
        **more,
        # Attacks need pixels in [0, 1].
        "image": x[:, :16].sigmoid().view(-1, 1, 4, 4),
        "video": x[:, :16].view(-1, 1, 2, 2, 4),
        "label": label,
        "index": torch.arange(size),
        "valid": valid,
        "partner_x": x[partner],
        "partner_label": label[partner],
    }


def task_of(scheme: Scheme) -> str:
    """Return the kind of batch that a scheme needs, or the task on the cards of its objectives."""
    if isinstance(scheme, GeneratesText):
        return "writing"
    if isinstance(scheme, DPKD):
        return f"two_tasks/{REJECTED}"
    if isinstance(scheme, TwoTasks):
        return f"two_tasks/{scheme.prefix}"
    if isinstance(scheme, TeacherSequenceScheme):
        return "teacher_sequences"
    if isinstance(scheme, DiffusionScheme):
        return "denoisers"
    if isinstance(scheme, RegionCrops):
        return "regions"
    if isinstance(scheme, PromptLoop):
        return "prompts"
    parts = [part for part in scheme.modules() if isinstance(part, Objective)]
    return next(iter(part.card.tasks[0] for part in parts), "classification")


def cut(whole: Batch, sizes: list[int]) -> list[Batch]:
    return [
        dict(zip(whole, parts, strict=True))
        for parts in zip(*(value.split(sizes) for value in whole.values()), strict=True)
    ]


def train(
    make: Callable[[], Scheme],
    sizes: list[int],
    share: slice = slice(None),
    shard: bool = False,
    save: Path | None = None,
    resume: Path | None = None,
) -> Tensor:
    """Return all weights and buffers after five steps.

    This process gets ``share`` of every batch, divided into ``sizes``. ``save`` is written after
    two steps; ``resume`` is a file that another run wrote then.
    """
    torch.manual_seed(0)
    scheme = make()
    task = task_of(scheme)
    scheme.prepare(batch(99, task=task))
    engine = Engine("cpu", shard=shard, clip=1.0)
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1, "momentum": 0.9}))
    if resume is not None:
        engine.load(scheme, resume)
    for step in range(2 if resume is not None else 0, STEPS):
        clock = {
            "step": torch.tensor(step),
            "progress": torch.tensor(step / STEPS),
            "seed": torch.tensor(0),
            "epoch_ends": torch.tensor(step == 2),
        }
        shard = {key: value[share] for key, value in batch(step, task=task).items()}
        train_step(engine, scheme, [part | clock for part in cut(shard, sizes)])
        if save is not None and step == 1:
            engine.save(scheme, save, {})
    return state(scheme)


def state(scheme: Scheme) -> Tensor:
    """Return all weights and buffers as one flat tensor."""
    tensors = [
        t.full_tensor() if hasattr(t, "full_tensor") else t
        for t in (*scheme.parameters(), *scheme.buffers())
    ]
    return torch.cat([t.detach().flatten().float() for t in tensors])


def looped(loader: list[Batch], accumulate: int, shard: bool = False) -> Tensor:
    """Return the result of ``fit`` with a loader."""
    scheme = Offline(net(16, 1), Frozen(net(32, 2)), plain())
    fit(
        scheme,
        loader,
        Training(
            epochs=2,
            accumulate=accumulate,
            device="cpu",
            optimizer=Optimization("sgd", {"lr": 0.1}),
            shard=shard,
        ),
    )
    return state(scheme)


def pieces() -> list[Batch]:
    """Return seven small batches of an epoch."""
    return [part for seed in range(7) for part in [batch(seed, 8)]]


def main(folder: Path, shard: bool) -> dict[str, Tensor]:
    first = rank() == 0
    share = slice(0, 40) if first else slice(40, 64)
    schemes = {name: make for name, make in SCHEMES.items() if not (shard and name in WHOLE)}
    ends = {
        name: train(make, [20, 20] if first else [23, 1], share, shard)
        for name, make in schemes.items()
    }
    ends |= {
        name: train(make, [40] if first else [24], share, shard) for name, make in COUPLED.items()
    }
    for name in (one for one in KEPT if one in schemes):
        ends[f"saved by two/{name}"] = train(
            SCHEMES[name], [40] if first else [24], share, shard, save=folder / f"two_{name}.pt"
        )
        ends[f"saved by one/{name}"] = train(
            SCHEMES[name], [40] if first else [24], share, shard, resume=folder / f"one_{name}.pt"
        )
    # global steps of four batches: this rank's two first, then the other's; the second rank runs
    # out
    ends["fit"] = looped([pieces()[i] for i in ((0, 1, 4, 5) if first else (2, 3, 6))], 2, shard)
    return ends


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    Engine("cpu")  # joins the process group
    ends = main(out.parent, sys.argv[2] == "shard")
    if rank() == 0:
        torch.save(ends, out)
