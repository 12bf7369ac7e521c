"""Module of Lightning that distils a student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from instil import Optimization, Training, distil
from instil.integrations import DistillationLoss
from tests.nets import pooled_cnn

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings(
    "ignore:::lightning", "ignore:.*LeafSpec", "ignore:.*num_workers"
)

STEPS = 4


def network(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    return pooled_cnn(width)


@pytest.fixture
def loader() -> Any:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS * 6, 1, 6, 6, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(STEPS * 6) % 3), batch_size=6)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def trainer(folder: Path, **options: Any) -> Any:
    values: dict[str, Any] = {
        "max_steps": STEPS,
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return lightning.Trainer(**(values | options))


def vector(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize(
    "objectives",
    [{"cross_entropy": 1.0, "kd": 1.0}, {"kd": {"weight": {"start": 1.0, "end": 0.1}}}],
    ids=["kd", "schedule"],
)
def test_the_weights_are_those_of_fit(
    objectives: dict[str, Any], loader: Any, tmp_path: Path
) -> None:
    from instil.integrations.lightning_module import DistillationModule

    student = network(4)
    expected = copy.deepcopy(student)
    teacher = network(8).eval()
    loss = DistillationLoss(teacher, student, objectives, next(iter(loader)))
    module = DistillationModule(loss, sgd)
    run = trainer(tmp_path)
    run.fit(module, loader)
    names = {"loss"} | {f"loss_{name}" for name in objectives}
    assert names <= set(run.callback_metrics)
    training = Training(
        steps=STEPS, optimizer=Optimization("sgd", {"lr": 0.05}), schedule="constant", device="cpu"
    )
    distil(teacher, expected, loader, objectives, training=training, progress=False)
    torch.testing.assert_close(vector(module.student), vector(expected), rtol=0, atol=1e-6)
    assert not teacher.training


def test_a_checkpoint_continues_without_the_teacher(loader: Any, tmp_path: Path) -> None:
    from instil.integrations.lightning_module import DistillationModule

    def module() -> Any:
        loss = DistillationLoss(network(8), network(4), {"kd": 1.0}, next(iter(loader)))
        return DistillationModule(loss, sgd)

    whole = module()
    # Lightning may repeat a batch when it continues, so there is only one.
    trainer(tmp_path, limit_train_batches=1).fit(whole, loader)
    first = trainer(tmp_path, limit_train_batches=1, max_steps=-1, max_epochs=2)
    first.fit(module(), loader)
    checkpoint = tmp_path / "half.ckpt"
    first.save_checkpoint(checkpoint)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not any("teacher" in name for name in state)
    rest = module()
    last = trainer(tmp_path, limit_train_batches=1)
    last.fit(rest, loader, ckpt_path=checkpoint, weights_only=True)
    torch.testing.assert_close(vector(rest.student), vector(whole.student), rtol=0, atol=1e-6)
