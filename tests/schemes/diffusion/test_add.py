from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil.core import Net
from instil.schemes.diffusion.add import ADD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, constant, denoiser, matching, prepared, teacher


class Classifier(nn.Module):
    """Two convolutions and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 3)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.5, generator=generator)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(image).tanh()).mean((2, 3)))


def scheme(penalty: float = 0.0, fool: float = 0.5, **options: object) -> ADD:
    classifier = Net(Classifier(), taps={"features": ["first", "second"]})
    return ADD(denoiser(), teacher(), matching(), classifier, fool=fool, penalty=penalty, **options)


def test_contracts() -> None:
    # The adversarial loss rises while the critics learn.
    check_scheme(lambda: scheme(1.0, fool=1e-3), batch)


@pytest.mark.parametrize("has_classifier", [True, False])
def test_losses_of_the_critics_in_the_form_of_the_paper(has_classifier: bool) -> None:
    it = scheme(3.0)
    if not has_classifier:
        it = ADD(denoiser(), teacher(), matching(), penalty=3.0)
    prepared(it)
    data = clocked()
    fake = it.denoised_data(data, 1).clean.detach()
    real = 2 * data["image"] - 1

    def features(images: torch.Tensor) -> list[torch.Tensor]:
        if has_classifier:
            network = it.classifier.net.model
            first = network.first((images + 1) / 2)
            return [first, network.second(first.tanh())]
        time = torch.full((len(images),), it.schedule.min_time)
        noisy = it.schedule.alpha(time).view(-1, 1, 1, 1) * images
        inputs = {"noisy": noisy, "time": time, "label": data["label"]}
        return list(it.teacher(inputs)["features"])

    expected = torch.zeros(len(fake))
    for head, own, other in zip(it.heads, features(real), features(fake), strict=True):
        level = own.detach().requires_grad_()
        values = F.relu(1 - head(level)) + F.relu(1 + head(other))
        expected = expected + values.flatten(1).mean(1)
        score = head(level).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(score, level)
        expected = expected + 3 * gradient.square().flatten(1).sum(1) / 2
    update = next(it.step(data))
    assert update.learner == "critic"
    assert torch.allclose(update.losses["critic"], expected.mean(), rtol=1e-4)
    assert it.sharding_obstacle() == "differentiates the critic twice"


def test_the_classifier_keeps_its_normalisation() -> None:
    def normalising_call(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, object]:
        return {"logits": model((inputs["image"] - 0.4) / 0.2)}

    network = Classifier()
    classifier = Net(network, normalising_call, {"features": ["first", "second"]})
    it = prepared(ADD(denoiser(), teacher(), matching(), classifier))
    images = torch.rand(2, 1, 4, 4)
    levels = it._levels(2 * images - 1, None)
    torch.testing.assert_close(levels[0], network.first((images - 0.4) / 0.2))


def test_the_student_denoises_data_at_the_steps_of_its_sampler() -> None:
    it = prepared(scheme(steps=3))
    seen: list[dict[str, torch.Tensor]] = []
    it.student.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    sample = it.denoised_data(clocked())
    grid = it.schedule.grid(3).float()
    assert set(seen[0]["time"].tolist()) == set(grid[:3].tolist())
    clean = 2 * clocked()["image"] - 1
    alpha, sigma = it.schedule.coefficients(seen[0]["time"], clean)
    noise = (seen[0]["noisy"] - alpha * clean) / sigma
    assert float(noise.std()) == pytest.approx(1, abs=0.15)
    assert torch.equal(sample.label, clocked()["label"])


def test_the_student_fools_the_critics_and_follows_the_teacher() -> None:
    it = prepared(scheme())
    _, update = it.step(clocked())
    student, target = it.forward_both(clocked())
    sample = it.denoised_data(clocked())
    network = it.classifier.net.model
    first = network.first((sample.clean + 1) / 2)
    levels = [first, network.second(first.tanh())]
    pairs = zip(it.heads, levels, strict=True)
    scores = sum(head(level).flatten(1).mean(1) for head, level in pairs)
    assert torch.allclose(update.losses["fool"], -0.5 * scores.mean(), rtol=1e-4)
    gradients = torch.autograd.grad(
        update.losses["fool"], list(it.student.parameters()), allow_unused=True
    )
    assert any(value is not None and value.abs().max() > 0 for value in gradients)
    denoised = it.teacher_denoised(sample.noisy, sample.time, sample.label)
    error = (sample.clean - denoised).square().flatten(1).mean(1)
    expected = (it.schedule.alpha(sample.time) * error).mean()
    assert torch.allclose(update.losses["matching"], expected, rtol=1e-4)
    assert not target["denoised"].requires_grad
    assert student["denoised"].requires_grad
    assert all(parameter.grad is None for parameter in it.classifier.parameters())


def test_networks_without_features_are_refused() -> None:
    it = ADD(denoiser(num_classes=0), Frozen(constant()), matching())
    with pytest.raises(ValueError, match=r"teacher.taps: the critic of add reads 'features'"):
        it.prepare(batch())
    it = ADD(denoiser(), teacher(), matching(), Classifier())
    with pytest.raises(ValueError, match=r"scheme.classifier.taps: the critic of add reads"):
        it.prepare(batch())
