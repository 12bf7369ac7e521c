"""Losses computed by a model: values, items, detectors, transformers, errors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objectives, Outputs, Scheme
from instil.engine import Optimization
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.labels.own_loss import OwnLoss, own_loss
from instil.objectives.logits.kd import KD
from instil.recipe.checking import validation_errors
from instil.recipe.defaults import resolve_defaults
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.detector_call import detector_call
from instil.teachers.frozen import Frozen
from instil.testing.objective import check_objective
from instil.training.fit import Training, fit
from tests.nets import net


def loss_of(objective: OwnLoss, outputs: Outputs, batch: Batch) -> Tensor:
    return Objectives({"own": objective})(outputs, {}, batch).losses["own"]


def test_contracts() -> None:
    check_objective(OwnLoss)


def test_dict_is_a_weighted_sum() -> None:
    losses = {"box": torch.tensor(1.0), "class": torch.tensor(3.0), "mask": torch.tensor(5.0)}
    batch = {"x": torch.zeros(4, 2)}
    assert loss_of(OwnLoss(), {"loss": losses}, batch) == 9
    assert loss_of(OwnLoss({"box": 2.0, "mask": 0.0}), {"loss": losses}, batch) == 5
    assert loss_of(OwnLoss(), {"loss": torch.tensor(7.0)}, batch) == 7


def test_losses_of_samples_are_averaged_over_the_valid_ones() -> None:
    loss = torch.tensor([1.0, float("nan"), 3.0, 8.0])
    valid = torch.tensor([True, False, True, True])
    batch = {"x": torch.zeros(4, 2), "valid": valid}
    assert loss_of(OwnLoss(), {"loss": loss}, batch) == 4


def test_half_precision_is_added_in_float32() -> None:
    loss = own_loss({"a": torch.tensor(256.0).bfloat16(), "b": torch.tensor(1.0).bfloat16()}, None)
    assert loss.dtype == torch.float32
    assert loss == 257


@pytest.mark.parametrize(
    ("objective", "outputs", "message"),
    [
        (OwnLoss(), {"logits": torch.zeros(2, 3)}, "the student returns no loss.*got logits"),
        (OwnLoss(), {"loss": None}, "the student returns no loss"),
        (OwnLoss(), {"loss": {"a": None}}, "loss 'a': Expected a tensor, got NoneType"),
        (OwnLoss(), {"loss": {}}, "Expected at least one loss"),
        (OwnLoss({"bx": 2.0}), {"loss": {"box": torch.ones(())}}, r"weights\.bx: .*one of box"),
        (OwnLoss(), {"loss": torch.ones(3)}, "one loss per sample"),
    ],
)
def test_wrong_losses(objective: OwnLoss, outputs: Outputs, message: str) -> None:
    batch = {"x": torch.zeros(2, 2), "label": torch.zeros(2, 5, dtype=torch.long)}
    with pytest.raises(ValueError, match=message):
        loss_of(objective, outputs, batch)


def test_hidden_boxes_are_not_learned_as_background() -> None:
    outputs = {"loss": torch.tensor(1.0)}
    batch = {"image": torch.zeros(2, 3, 8, 8), "label": torch.tensor([[1, -100], [2, -100]])}
    box = torch.full((2, 2, 4), -100.0)
    box[:, 0] = torch.tensor([1.0, 1.0, 4.0, 4.0])
    assert loss_of(OwnLoss(), outputs, batch | {"box": box}) == 1
    assert loss_of(OwnLoss(), outputs, batch | {"box": box, "num_boxes": torch.tensor([1, 1])}) == 1
    with pytest.raises(ValueError, match=r"the boxes of image 1 are hidden \(num_boxes -100\)"):
        loss_of(OwnLoss(), outputs, batch | {"box": box, "num_boxes": torch.tensor([1, -100])})
    box[1, 1] = torch.tensor([0.0, 0.0, 8.0, 8.0])
    with pytest.raises(ValueError, match="a box of image 1 has the class -100"):
        loss_of(OwnLoss(), outputs, batch | {"box": box})


def test_losses_of_samples_have_the_weight_of_their_labels() -> None:
    label = torch.tensor([[1, 2, 3], [3, -100, -100]])
    batch = {"x": torch.zeros(2, 2), "label": label}
    assert loss_of(OwnLoss(count="labels"), {"loss": torch.tensor([2.0, 6.0])}, batch) == 3


def test_labels_are_counted_without_missing_ones() -> None:
    label = torch.tensor([[1, 2, -100], [3, -100, -100], [4, 4, 4]])
    batch = {"x": torch.zeros(3, 2), "label": label, "valid": torch.tensor([1.0, 1.0, 0.0])}
    assert OwnLoss(count="labels").num_items(batch) == 3
    assert OwnLoss().num_items(batch) == 2
    with pytest.raises(ValueError, match="count: labels needs 'label' in the batch"):
        OwnLoss(count="labels").num_items({"x": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="count: Expected samples or labels, got 'tokens'"):
        OwnLoss(count="tokens")  # type: ignore[arg-type]


class Supervised(nn.Module):
    """Classifier that returns its own cross-entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Tensor, label: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"logits": logits, "loss": nn.functional.cross_entropy(logits, label)}


def own_call(model: nn.Module, batch: Batch) -> Outputs:
    return dict(model(batch["x"], batch["label"]))


def items(count: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (count,), generator=generator)
    return {"x": torch.randn(count, 6, generator=generator), "label": label}


def parts(whole: Batch, sizes: list[int]) -> list[Batch]:
    splits = {key: value.split(sizes) for key, value in whole.items()}
    return [{key: split[i] for key, split in splits.items()} for i in range(len(sizes))]


def train(scheme: Scheme, loader: list[Batch], **options: Any) -> dict[str, Tensor]:
    defaults = {
        "steps": 2,
        "device": "cpu",
        "accumulate": len(loader),
        "optimizer": Optimization("sgd", {"lr": 0.5}),
    }
    fit(scheme, loader, Training(**(defaults | options)))
    return scheme.student.state_dict()


@pytest.mark.parametrize("sizes", [[12], [1, 11], [5, 4, 3]])
def test_scalar_trains_as_the_loss_of_the_items_however_the_batch_is_split(
    sizes: list[int],
) -> None:
    torch.manual_seed(0)
    start = Supervised().state_dict()
    trained: list[dict[str, Tensor]] = []
    for objective, split in ((OwnLoss(), sizes), (CrossEntropy(), [12])):
        model = Supervised()
        model.load_state_dict(start)
        teacher = Frozen(net(8, 1))
        scheme = Offline(Net(model, own_call), teacher, {"labels": objective, "kd": KD()})
        trained.append(train(scheme, parts(items(), split)))
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name])


def test_sample_weights_need_a_loss_per_sample() -> None:
    objective = OwnLoss()
    objective.sample_weight = lambda *_: torch.ones(2)  # type: ignore[assignment, return-value]
    with pytest.raises(ValueError, match="sample_weight: the student returns one loss"):
        objective({"loss": torch.ones(())}, {}, {"x": torch.zeros(2, 1)})


def test_batch_without_counted_items_costs_nothing() -> None:
    batch = {"x": torch.zeros(2, 1), "valid": torch.zeros(2)}
    weight = torch.ones((), requires_grad=True)
    loss = loss_of(OwnLoss(), {"loss": weight * 3}, batch)
    loss.backward()
    assert loss == 0
    assert weight.grad == 0
    assert loss_of(OwnLoss(), {"loss": torch.tensor(float("nan"))}, batch) == 0


# --- detectors of torchvision


def detector() -> nn.Module:
    pytest.importorskip("torchvision")
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    backbone: Any = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    backbone.out_channels = 8
    return FasterRCNN(
        backbone,
        num_classes=3,
        min_size=32,
        max_size=32,
        rpn_anchor_generator=AnchorGenerator(((8, 16),), ((1.0,),)),
        box_roi_pool=None,
    )


def scenes() -> Batch:
    """Return four images with one or two boxes."""
    generator = torch.Generator().manual_seed(1)
    box = torch.tensor([[4.0, 4.0, 20.0, 18.0], [10.0, 12.0, 28.0, 30.0]]).repeat(4, 1, 1)
    label = torch.tensor([[1, 2], [1, -100], [2, 1], [2, -100]])
    box[label == -100] = -100
    return {"image": torch.rand(4, 3, 32, 32, generator=generator), "box": box, "label": label}


LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


def test_a_detector_learns_from_its_own_losses() -> None:
    model = detector()
    scheme = Offline(Net(model, detector_call), None, {"own_loss": OwnLoss()})
    optimizer = Optimization("adam", {"lr": 1e-2})
    options = Training(epochs=40, device="cpu", optimizer=optimizer, schedule="constant")
    torch.manual_seed(0)
    result = fit(scheme, [scenes()], options)
    losses = [record["losses"]["student/own_loss"] for record in result.records]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    detections = result.net(scenes())["detections"]
    assert len(detections) == 4
    assert set(detections[0]) == {"boxes", "labels", "scores"}


def test_weights_of_the_losses_of_a_detector() -> None:
    outputs = detector_call(detector().train(), scenes())
    assert set(outputs["loss"]) == set(LOSSES)
    weights = dict(zip(LOSSES, (1.0, 2.0, 0.5, 0.0), strict=True))
    loss = loss_of(OwnLoss(weights), outputs, scenes())
    expected = sum(weights[name] * value for name, value in outputs["loss"].items())
    torch.testing.assert_close(loss, expected)


# --- transformers, called with labels


def test_tokens_of_a_transformers_model_however_the_batch_is_split() -> None:
    """The model's mean over tokens: with count labels, parts of unequal length are one batch."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BartConfig(
        vocab_size=20,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=16,
        dropout=0.0,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )

    def call(model: nn.Module, batch: Batch) -> Outputs:
        return dict(model(input_ids=batch["input_ids"], labels=batch["label"]))

    generator = torch.Generator().manual_seed(3)
    label = torch.randint(3, 20, (4, 6), generator=generator)
    for row, length in enumerate((6, 1, 3, 2)):
        label[row, length:] = -100
    input_ids = torch.randint(3, 20, (4, 5), generator=generator)
    whole = {"input_ids": input_ids, "label": label}
    trained: dict[tuple[str, int], dict[str, Tensor]] = {}
    for count, sizes in itertools.product(("samples", "labels"), ([4], [1, 3])):
        torch.manual_seed(0)
        student = Net(transformers.BartForConditionalGeneration(config), call)
        scheme = Offline(student, None, {"own_loss": OwnLoss(count=count)})
        trained[count, len(sizes)] = train(scheme, parts(whole, sizes))
    differences = {}
    for count in ("samples", "labels"):
        pairs = zip(trained[count, 1].values(), trained[count, 2].values(), strict=True)
        differences[count] = max(float((a - b).abs().max()) for a, b in pairs)
    assert differences["labels"] < 1e-5
    assert differences["samples"] > 1e-3


# --- recipes


def recipe(**options: Any) -> dict[str, Any]:
    return resolve_defaults(
        {
            "data": {"name": "digits"},
            "student": {"model": "cnn"},
            "teacher": {"model": "cnn"},
            "objectives": {"own_loss": options, "kd": {}},
        }
    )


def test_options_in_a_recipe() -> None:
    assert validation_errors(recipe(weights={"box": 2, "class": 0.5}, count="labels")) == []
    for options in ({"weights": {"box": -1}}, {"count": "tokens"}, {"weight_of": 1}):
        (error,) = validation_errors(recipe(**options))
        assert error.startswith("objectives.own_loss")
