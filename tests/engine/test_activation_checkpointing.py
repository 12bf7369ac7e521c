import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Scheme
from instil.engine import Engine, Optimization
from instil.engine.activation_checkpointing import checkpoint_activations, keep_activations
from instil.networks.causal_transformer import causal_transformer
from instil.networks.cnn import CNN
from instil.objectives.features.fitnet import FitNet
from instil.objectives.features.jacobian import Jacobian
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.data_free.zskt import ZSKT
from instil.schemes.offline.offline import Offline
from instil.schemes.online.mutual import Mutual
from instil.tasks.bases.peak_memory import PeakMemory
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.test_parity import on_two_ranks

STEPS = 3


class Dropped(nn.Module):
    """CNN with BatchNorm, and dropout inside of its stages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cnn = CNN(3, 1, width, stages=2, depth=1, norm="batch")
        for stage in self.cnn.stages:
            stage.append(nn.Dropout(0.3))

    def forward(self, image: Tensor) -> Tensor:
        return self.cnn(image)


def images(width: int, seed: int) -> Net:
    torch.manual_seed(seed)
    # A level inside of a checkpointed stage.
    return Net(Dropped(width), taps={"features": ["cnn.stages.0.0", "cnn.stages.1"]})


def image_batch(step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    return {"image": torch.randn(8, 1, 8, 8, generator=draw), "index": torch.arange(8)}


def offline() -> Scheme:
    return Offline(images(4, 0), Frozen(images(8, 1)), {"kd": KD(), "fitnet": FitNet()})


def adversarial() -> Scheme:
    return Adversarial(images(4, 0), Frozen(images(8, 1)), {"kd": KD()})


def mutual() -> Scheme:
    return Mutual(images(4, 0), [images(4, 1)], {"kd": KD()})


class Painter(nn.Module):
    """Generator of images (N, 1, 8, 8) from codes."""

    latent = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))

    def forward(self, codes: Tensor) -> Tensor:
        image: Tensor = self.layers(codes)
        return image


def generated() -> Scheme:
    """Return a scheme that runs the student in evaluation mode and differentiates it later."""
    return ZSKT(images(4, 0), Frozen(images(8, 1)), {"kd": KD()}, Painter(), student_steps=2)


def double_backward() -> Scheme:
    return Offline(images(4, 0), Frozen(images(8, 1)), {"jacobian": Jacobian()})


def trained(
    build: Callable[[], Scheme], is_checkpointed: bool, sizes: tuple[int, ...] = (8,)
) -> Tensor:
    torch.manual_seed(0)
    scheme = build()
    scheme.prepare(image_batch(99))
    engine = Engine("cpu", activation_checkpointing=is_checkpointed)
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1, "momentum": 0.9}))
    scheme.train()
    for step in range(STEPS):
        clock = {
            "step": torch.tensor(step),
            "progress": torch.tensor(step / STEPS),
            "seed": torch.tensor(0),
        }
        batch = image_batch(step)
        parts = zip(*(batch[key].split(list(sizes)) for key in batch), strict=True)
        train_step(engine, scheme, [dict(zip(batch, part, strict=True)) | clock for part in parts])
    released = engine.release(scheme)
    assert not [part for part in released.modules() if "_Checkpointed" in str(type(part).__mro__)]
    return torch.cat([value.flatten().float() for value in released.state_dict().values()])


@pytest.mark.parametrize("build", [offline, adversarial, mutual, generated, double_backward])
def test_same_weights_and_statistics(build: Callable[[], Scheme]) -> None:
    assert torch.equal(trained(build, True), trained(build, False))


def test_same_weights_with_micro_batches() -> None:
    assert torch.equal(trained(offline, True, (5, 3)), trained(offline, False, (5, 3)))


def saved_bytes(model: nn.Module, tokens: Tensor) -> int:
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens)["logits"].sum()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    loss.backward()
    return sum(size for storage, size in sizes.items() if storage not in weights)


def test_blocks_keep_their_inputs_only() -> None:
    tokens = torch.zeros(4, 64, dtype=torch.long)
    model = causal_transformer(vocabulary=50, length=64, width=32, depth=6, heads=4)
    plain = saved_bytes(model, tokens)
    checkpoint_activations([model])
    assert saved_bytes(model, tokens) < 0.25 * plain


def test_a_copy_runs_with_its_own_weights() -> None:
    net = images(4, 0)
    checkpoint_activations([net])
    twin = copy.deepcopy(net).eval()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    assert twin(image_batch(0))["features"][1].abs().sum() > 0
    checkpoint_activations([twin])
    keep_activations(twin)
    assert type(twin.model.cnn.stages[0]) is nn.Sequential


def test_a_network_without_blocks() -> None:
    with pytest.raises(ValueError, match=r"train\.activation_checkpointing: the trained networks"):
        checkpoint_activations([nn.Sequential(nn.Linear(4, 4), nn.ReLU())])


@pytest.mark.slow
def test_two_sharded_ranks_give_the_same_weights(tmp_path: Path) -> None:
    ends = on_two_ranks("tests.engine.checkpointed_on_ranks", tmp_path / "ends.pt")
    assert torch.allclose(ends["checkpointed"], ends["plain"], atol=1e-6)


def test_copies_of_weights_in_bfloat16_are_freed() -> None:
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(8)])
    checkpoint_activations([blocks])
    with PeakMemory() as live, torch.autocast("cpu", torch.bfloat16):
        output = blocks(torch.randn(1, 64, requires_grad=True))
    copy_bytes = 2 * 64 * 64
    # Of one block at a time, not of all eight.
    assert copy_bytes < live.peak < 2 * copy_bytes
    output.float().sum().backward()
    assert all(parameter.grad is not None for parameter in blocks.parameters())
