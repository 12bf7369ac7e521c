"""Distillation in one call: inputs, errors, resumption and gain."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import instil
from instil.core import UNLABELLED, Net, Schedule
from instil.data.sources.digits import digits
from instil.networks.cnn import cnn
from instil.networks.mlp import mlp
from instil.objectives.logits.kd import KD
from instil.tasks.classification import call
from instil.teachers.ensemble import Ensemble
from instil.training.fit import Training


def seeded(make: Any, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net: nn.Module = make()
    return net


def student(seed: int = 0) -> nn.Module:
    return seeded(lambda: mlp(10, width=6), seed)


def teacher() -> nn.Module:
    return seeded(lambda: cnn(10, width=3), 9)


def loader(size: int = 40, labels: int = 20, batch: int = 20) -> DataLoader[Any]:
    data = digits().train
    label = data.label[:size].clone()
    label[labels:] = UNLABELLED
    return DataLoader(
        TensorDataset(data.image[:size], label),
        batch,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_the_default_fits_the_labels() -> None:
    images, numbers = torch.rand(8, 1, 8, 8), torch.rand(8, 1)
    two_classes = [(images, torch.tensor([0, 1] * 4))]
    result = instil.distil(mlp(2), mlp(2), two_classes, epochs=1)
    assert set(result.records[0]["losses"]) == {"student/cross_entropy", "student/kd"}
    result = instil.distil(mlp(1), mlp(1), [(images, numbers)], task="regression", epochs=1)
    assert set(result.records[0]["losses"]) == {"student/mean_squared_error", "student/logit_mse"}


def test_the_default_is_labels_and_dist() -> None:
    result = instil.distil(teacher(), student(), loader(), epochs=1)
    assert set(result.records[0]["losses"]) == {"student/cross_entropy", "student/dist"}
    same = instil.distil(
        teacher(), student(), loader(), {"cross_entropy": 1.0, "dist": 1.0}, epochs=1
    )
    assert torch.equal(weights(result.net), weights(same.net))


def test_the_student_itself_learns_and_the_teacher_does_not() -> None:
    student_net, teacher_net = student(), teacher().train()
    before, state = weights(student_net), copy.deepcopy(teacher_net.state_dict())
    result = instil.distil(teacher_net, student_net, loader(), epochs=1)
    assert not torch.equal(weights(student_net), before)
    assert torch.equal(weights(result.net), weights(student_net))
    assert all(torch.equal(value, state[name]) for name, value in teacher_net.state_dict().items())


def test_nets_and_teachers_as_they_are() -> None:
    plain = instil.distil(teacher(), student(), loader(), epochs=1)
    wrapped = instil.distil(Net(teacher(), call), Net(student(), call), loader(), epochs=1)
    explicit = instil.distil(Ensemble([teacher()]), student(), loader(), epochs=1)
    for other in (wrapped, explicit):
        torch.testing.assert_close(weights(other.net), weights(plain.net))


def test_batches_as_dicts() -> None:
    class Dicts:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Any:
            return ({"image": image, "label": label} for image, label in loader())

    result = instil.distil(teacher(), student(), Dicts(), epochs=1)
    torch.testing.assert_close(
        weights(result.net), weights(instil.distil(teacher(), student(), loader(), epochs=1).net)
    )


def test_objectives_by_name_by_object_and_with_weights() -> None:
    def ended(objectives: Any) -> Tensor:
        return weights(instil.distil(teacher(), student(), loader(), objectives, epochs=2).net)

    assert torch.equal(ended({"kd": 0.5}), ended({"kd": (KD(), 0.5)}))
    assert torch.equal(ended({"kd": 1.0}), ended({"mine": KD()}))
    assert not torch.equal(ended({"kd": 1.0}), ended({"kd": KD(temperature=1)}))
    assert torch.equal(ended({"kd": Schedule(0.5, 0.5)}), ended({"kd": 0.5}))
    assert not torch.equal(
        ended({"cross_entropy": 1, "kd": Schedule(0.0, 1.0)}),
        ended({"cross_entropy": 1, "kd": 0.5}),
    )


def test_a_schedule_begins_where_it_says() -> None:
    late = {"kd": Schedule(0.0, 1.0, until=0.5, after=0.5)}
    result = instil.distil(teacher(), student(), loader(), {"cross_entropy": 1.0, **late}, epochs=2)
    assert (
        result.records[0]["losses"]["student/kd"] == 0 < result.records[1]["losses"]["student/kd"]
    )


def test_feature_objectives_find_the_stages_of_known_models() -> None:
    result = instil.distil(
        teacher(), seeded(lambda: cnn(10, width=2)), loader(), {"fitnet": 1.0}, epochs=1
    )
    assert result.records[0]["losses"]["student/fitnet"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": {"kdd": 1.0}}, "No objective named 'kdd'. Did you mean kd"),
        (
            {"objectives": {"fitnet": 1.0}},
            "objectives.fitnet: FitNet needs features of the student, which outputs embedding, "
            "head, logits.*"
            "Its modules: stages, head, stages.0, stages.0.0",
        ),
        ({"task": "clasification"}, "No task named 'clasification'. Did you mean classification"),
        ({"epochs": 0}, "nothing to train|training needs epochs or steps"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instil.distil(teacher(), student(), loader(), **options)


def test_a_teacher_of_other_classes() -> None:
    with pytest.raises(ValueError, match=r"7.*10|10.*7"):
        instil.distil(seeded(lambda: cnn(7, width=2)), student(), loader(), {"kd": 1.0}, epochs=1)


def test_three_values_in_a_tuple() -> None:
    three = [(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64), torch.zeros(4))]
    with pytest.raises(
        ValueError,
        match=r"loader: a batch has 3 values\. Expected a dict, or a tuple of 2 \(image, label\)",
    ):
        instil.distil(teacher(), student(), three, epochs=1)


def test_three_values_with_their_names() -> None:
    three = [(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64), torch.arange(4))]
    names = ("image", "label", "index")
    result = instil.distil(teacher(), student(), three, epochs=1, names=names)
    assert result.records[-1]["step"] == 1


@pytest.mark.parametrize(
    "objectives",
    [
        "kd",
        ["kd"],
        ("kd",),
        {"kd": None},
        {"kd": {}},
        {"kd": {"temperature": 2, "weight": 1}},
        {"soft": {"type": "kd"}},
        {"soft": {"type": "kd", "weight": {"start": 1.0, "end": 1.0}}},
    ],
)
def test_every_form_of_objectives_means_the_same(objectives: Any) -> None:
    expected = instil.distil(teacher(), student(), loader(), {"kd": 1.0}, epochs=1)
    result = instil.distil(teacher(), student(), loader(), objectives, epochs=1)
    assert torch.equal(weights(result.net), weights(expected.net))


def test_options_of_a_recipe_change_the_objective() -> None:
    def final_weights(objectives: Any) -> Tensor:
        return weights(instil.distil(teacher(), student(), loader(), objectives, epochs=1).net)

    spec = {"kd": {"temperature": 2, "weight": 0.5}}
    assert torch.equal(final_weights(spec), final_weights({"kd": (KD(temperature=2), 0.5)}))


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"kd": {"temprature": 2}}, r"objectives\.kd\.temprature: unknown option"),
        ({"kd": "high"}, r"objectives\.kd: unknown form\. Expected a weight, options"),
        ({}, r"objectives: is empty"),
        ([], r"objectives: is empty"),
        ("kdd", "No objective named 'kdd'. Did you mean kd"),
        ("kd_loss", "No objective named 'kd_loss'. Did you mean kd"),
        ("KD", "No objective named 'KD'. Did you mean kd"),
    ],
)
def test_wrong_objectives_are_named(objectives: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instil.distil(teacher(), student(), loader(), objectives, epochs=1)


def test_several_teachers_are_an_ensemble() -> None:
    teachers = [teacher(), seeded(lambda: cnn(10, width=3), 4)]
    expected = instil.distil(Ensemble(copy.deepcopy(teachers)), student(), loader(), epochs=1)
    result = instil.distil(teachers, student(), loader(), epochs=1)
    torch.testing.assert_close(weights(result.net), weights(expected.net))
    with pytest.raises(ValueError, match=r"teacher: unknown type\. Expected a module or a list"):
        instil.distil("resnet18", student(), loader(), epochs=1)  # type: ignore[arg-type]


def test_nets_are_left_in_eval_mode() -> None:
    own_student, own_teacher = seeded(lambda: cnn(10, width=2)), teacher().train()
    result = instil.distil(own_teacher, own_student, loader(), epochs=1)
    for net in (own_student, own_teacher, result.net):
        assert not any(module.training for module in net.modules())


def test_batches_of_hugging_face() -> None:
    batches = [{"pixel_values": image, "labels": label} for image, label in loader()]
    plain = [{"image": batch["pixel_values"], "label": batch["labels"]} for batch in batches]
    expected = instil.distil(teacher(), student(), plain, epochs=1)
    result = instil.distil(teacher(), student(), batches, epochs=1)
    assert torch.equal(weights(result.net), weights(expected.net))


def test_bytes_are_images() -> None:
    image = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    label = torch.arange(8, dtype=torch.int32)
    expected = instil.distil(teacher(), student(), [(image / 255, label.long())], epochs=1)
    result = instil.distil(teacher(), student(), [(image, label)], epochs=1)
    assert torch.equal(weights(result.net), weights(expected.net))


@pytest.mark.parametrize("value", [10, -1])
@pytest.mark.parametrize("position", [0, 1])
def test_a_label_that_is_no_class(value: int, position: int) -> None:
    batches = [(torch.rand(4, 1, 8, 8), torch.arange(4)) for _ in range(2)]
    batches[position][1][2] = value
    message = (
        rf"loader: label {value} is not a class of the student, which has 10 logits\. Expected "
        rf"0 to 9"
    )
    with pytest.raises(ValueError, match=message):
        instil.distil(teacher(), student(), batches, epochs=1)


def test_one_hot_labels() -> None:
    one_hot = [(torch.rand(4, 1, 8, 8), torch.eye(10, dtype=torch.int64)[:4])]
    with pytest.raises(ValueError, match=r"One-hot labels: pass label\.argmax\(1\)"):
        instil.distil(teacher(), student(), one_hot, epochs=1)


def test_a_batch_without_the_input() -> None:
    with pytest.raises(ValueError, match=r"classification needs 'image' in a batch"):
        instil.distil(teacher(), student(), [{"picture": torch.rand(2, 1, 8, 8)}], epochs=1)


class Masks(nn.Module):
    """Segmentation network from outside the package."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.pixels = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.pixels(self.body(image))
        return logits


def test_segmentation_takes_images_and_masks() -> None:
    torch.manual_seed(0)
    image = torch.rand(6, 1, 8, 8)
    mask = (image[:, 0] * 3).long().clamp(0, 2)
    batches = [(image[:3], mask[:3]), (image[3:], mask[3:])]
    result = instil.distil(
        seeded(Masks, 1),
        seeded(Masks),
        batches,
        epochs=2,
        task="segmentation",
        validation=batches,
    )
    assert 0 <= result.records[-1]["validation"]["miou"] <= 1
    channel = [(image, mask.unsqueeze(1).to(torch.uint8)) for image, mask in batches]
    same = instil.distil(seeded(Masks, 1), seeded(Masks), channel, epochs=2, task="segmentation")
    assert torch.equal(weights(same.net), weights(result.net))
    void = mask.clone()
    void[:, 0] = 255
    with pytest.raises(ValueError, match=r"label 255 is not a class .* void pixels, add a boolean"):
        instil.distil(
            seeded(Masks, 1), seeded(Masks), [(image, void)], epochs=1, task="segmentation"
        )


class Plain(nn.Module):
    """Classifier of an unknown family, with two resolutions and a linear head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.classify = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        maps = torch.relu_(self.second(self.pool(self.first(image))))
        logits: Tensor = self.classify(maps.mean((2, 3)))
        return logits


def test_feature_objectives_find_the_stages_of_unknown_models() -> None:
    objectives = ["fitnet", "similarity_preserving"]
    result = instil.distil(
        seeded(lambda: Plain(6), 1), seeded(Plain), loader(), objectives, epochs=1
    )
    # ``second`` is changed in place after it ran, so the convolution inside is the last stable map.
    assert result.net.taps == {
        "features": ["first", "second.0"],
        "embedding": "classify:in",
        "head": "classify:weight",
    }
    assert result.records[0]["losses"]["student/fitnet"] > 0
    plain = instil.distil(seeded(lambda: Plain(6), 1), seeded(Plain), loader(), "kd", epochs=1)
    assert plain.net.taps == {}, "nothing is recorded that no objective reads"


class Broken(nn.Module):
    """Teacher whose logits are NaN for the second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = teacher(), 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.net(image)
        return logits if self.calls < 3 else logits * float("nan")


def test_nan_of_the_teacher_is_reported_as_the_teachers() -> None:
    with pytest.raises(RuntimeError, match=r"^teacher: its logits are NaN"):
        instil.distil(Broken(), student(), loader(), epochs=2)
    lost = instil.Optimization(options={"lr": 1e30})
    with pytest.raises(RuntimeError, match=r"loss 'student/"):
        instil.distil(teacher(), student(), loader(), training=Training(epochs=9, optimizer=lost))


def test_validation_tells_accuracy_and_agreement() -> None:
    reports: list[Any] = []
    test = digits().validation
    batches = [(test.image[:100], test.label[:100]), (test.image[100:], test.label[100:])]
    student_net, teacher_net = student(), teacher()
    result = instil.distil(
        teacher_net, student_net, loader(), epochs=2, validation=batches, report=reports.append
    )
    assert reports == result.records
    metrics = result.records[-1]["validation"]
    with torch.no_grad():
        answers, teacher_classes = (
            student_net.eval()(test.image).argmax(-1),
            teacher_net.eval()(test.image).argmax(-1),
        )
    assert metrics["accuracy"] == pytest.approx((answers == test.label).double().mean().item())
    assert metrics["agreement"] == pytest.approx(
        (answers == teacher_classes).double().mean().item()
    )


def test_it_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def training(every: int | None) -> Training:
        return Training(epochs=4, checkpoint_every=every)

    whole = instil.distil(teacher(), student(), loader(), training=training(None))

    class StopError(Exception):
        pass

    def stop(record: Any) -> None:
        if record["epoch"] == 3:
            raise StopError

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StopError):
        instil.distil(
            teacher(), student(), loader(), training=training(2), checkpoint=path, report=stop
        )
    again = instil.distil(
        teacher(), student(seed=5), loader(), training=training(2), checkpoint=str(path)
    )
    assert torch.equal(weights(again.net), weights(whole.net))
    assert [record["epoch"] for record in again.records] == [1, 2, 3, 4]


def test_epochs_and_lr_are_short_for_a_training() -> None:
    short = instil.distil(teacher(), student(), loader(), epochs=2, lr=0.01)
    long = instil.distil(
        teacher(),
        student(),
        loader(),
        training=Training(epochs=2, optimizer=instil.Optimization("adamw", {"lr": 0.01})),
    )
    assert torch.equal(weights(short.net), weights(long.net))


def test_it_helps() -> None:
    """A trained teacher, 60 labels and 1,000 images: over three seeds, each student is better
    distilled than alone.
    """
    data, test = digits().train, digits().test
    few = data.label.clone()
    few[60:] = UNLABELLED
    teacher_net = seeded(lambda: cnn(10, width=8), 0)
    rate = instil.Optimization(options={"lr": 1e-2})
    everything = DataLoader(TensorDataset(data.image, data.label), 100, shuffle=True)
    instil.fit(
        instil.Offline(teacher_net, None, {"cross_entropy": instil.CrossEntropy()}),
        everything,
        Training(epochs=8, optimizer=rate),
    )

    def accuracy(net: nn.Module) -> float:
        with torch.no_grad():
            return (net.eval()(test.image).argmax(-1) == test.label).double().mean().item()

    gains = []
    for seed in range(3):
        alone, distilled = (seeded(lambda: mlp(10, width=24), seed) for _ in range(2))
        labelled = DataLoader(TensorDataset(data.image[:60], few[:60]), 60, shuffle=True)
        partly = DataLoader(TensorDataset(data.image, few), 100, shuffle=True)
        training = Training(steps=400, optimizer=rate)
        instil.fit(
            instil.Offline(alone, None, {"cross_entropy": instil.CrossEntropy()}),
            labelled,
            training,
        )
        instil.distil(teacher_net, distilled, partly, training=training)
        gains.append(accuracy(distilled) - accuracy(alone))
    assert min(gains) > 0.02, gains


class Digits(IterableDataset[Any]):
    """Samples without a length, in another order in each epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        data = digits().train
        generator = torch.Generator().manual_seed(self.epoch)
        for row in torch.randperm(70, generator=generator).tolist():
            yield data.image[row], data.label[row]


class Interrupted(Exception):
    """Interruption of a training."""


def test_an_iterable_dataset_resumes_at_the_same_sample(tmp_path: Path) -> None:
    def train(report: Any = None, **options: Any) -> Tensor:
        net = student()
        training = Training(steps=11, evaluate_steps=4, checkpoint_steps=4, device="cpu")
        torch.manual_seed(0)
        instil.distil(
            teacher(),
            net,
            Digits(),
            training=training,
            batch_size=20,
            validation=Digits(),
            report=report,
            **options,
        )
        return weights(net)

    def stop(record: Any) -> None:
        # The record of step 8 comes before its checkpoint, that of step 9 ends the third pass.
        if record["step"] == 9:
            raise Interrupted

    whole = train(checkpoint=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(stop, checkpoint=tmp_path / "stopped")
    assert torch.equal(train(checkpoint=tmp_path / "stopped"), whole)


def test_a_loader_without_a_length_needs_steps() -> None:
    for without_length in (Digits(), (batch for batch in loader())):
        with pytest.raises(ValueError, match=r"^epochs: the loader has no length.* Set steps"):
            instil.distil(teacher(), student(), without_length)
    result = instil.distil(teacher(), student(), Digits(), steps=4, batch_size=20, progress=False)
    assert result.records[-1]["step"] == 4
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        instil.distil(teacher(), student(), Digits(), steps=4, batch_size=0)


def test_the_loader_of_webdataset_yields_batches() -> None:
    webdataset = pytest.importorskip("webdataset")
    web_loader = webdataset.WebLoader(Digits(), batch_size=20)
    result = instil.distil(teacher(), student(), web_loader, steps=4, progress=False)
    assert result.records[-1]["step"] == 4
