import copy
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil.core import Card, Net, Objective, Objectives
from instil.data.loader import Loader
from instil.data.sources.digits import digits
from instil.networks.cnn import cnn
from instil.tasks.classification import Classification, call
from instil.teachers.frozen import Frozen


class Means(nn.Module):
    """Logits are the mean of each channel; the last image is stored."""

    def forward(self, image):
        self.image = image
        return image.mean((2, 3))


def test_the_call_resizes_with_antialiasing_and_normalises():
    model, image = Means(), torch.rand(2, 3, 20, 16)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    outputs = call(model, {"image": image}, size=8, mean=mean, std=std)
    small = F.interpolate(image, (8, 8), mode="bilinear", antialias=True)
    expected = torch.stack([(small[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(model.image, expected)
    assert set(outputs) == {"logits"}
    assert not torch.allclose(expected, F.interpolate(image, (8, 8), mode="bilinear"), atol=1e-3)


def test_the_call_keeps_images_of_the_right_size():
    model, image = Means(), torch.rand(2, 3, 8, 8)
    call(model, {"image": image}, size=(8, 8))
    assert model.image is image


def test_grey_images_become_colour():
    model, image = Means(), torch.rand(2, 1, 8, 8)
    call(model, {"image": image}, mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.equal(model.image, image.expand(-1, 3, -1, -1))


def test_the_call_can_be_pickled_and_compiled():
    bound = pickle.loads(pickle.dumps(partial(call, size=6, mean=(0.5,), std=(0.5,))))
    model, batch = cnn(3, width=2), {"image": torch.rand(2, 1, 8, 8)}
    model.eval()
    compiled = torch.compile(
        lambda image: bound(model, {"image": image})["logits"], backend="eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(batch["image"]), bound(model, batch)["logits"])


def test_the_first_of_several_answers_is_the_logits():
    class Two(nn.Module):
        def forward(self, image):
            return image.mean((2, 3)), image

    assert call(Two(), {"image": torch.rand(2, 3, 4, 4)})["logits"].shape == (2, 3)


def test_a_transformers_model_returns_its_hidden_states():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=5,
    )
    model = transformers.ViTForImageClassification(config).eval()
    outputs = call(model, {"image": torch.rand(2, 1, 8, 8)})
    assert outputs["logits"].shape == (2, 5)
    assert [tuple(state.shape) for state in outputs["hidden_states"]] == [(2, 5, 8)] * 3


def test_evaluation_is_over_all_batches_and_restores_modes():
    data = digits().test
    model = cnn(10, width=4)
    net = Net(model, call)
    model.train()
    model.stages[0].eval()
    state = copy.deepcopy(model.state_dict())
    metrics, details = Classification().evaluate(net, Loader(data, 37, shuffle=False))
    assert model.training
    assert not model.stages[0].training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        logits = model(data.image)
    assert metrics["accuracy"] == pytest.approx(
        (logits.argmax(1) == data.label).double().mean().item()
    )
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, data.label).item(), rel=1e-5)
    assert sum(map(sum, details["confusion"])) == 500
    assert "agreement" not in metrics


def test_agreement_with_a_teacher():
    # Some pairs of random networks predict one and the same class for all images.
    torch.manual_seed(0)
    data, net = digits().test, Net(cnn(10, width=4), call)
    other = Net(cnn(10, width=4), call)
    batches = Loader(data, 100, shuffle=False)
    task = Classification()
    assert task.evaluate(net, batches, Frozen(copy.deepcopy(net)))[0]["agreement"] == 1
    assert task.evaluate(net, batches, Frozen(other))[0]["agreement"] < 1


def test_plain_modules_and_tuples_are_accepted():
    data, model = digits().test, cnn(10, width=4)
    pairs = [(data.image[:300], data.label[:300]), (data.image[300:], data.label[300:])]
    assert Classification().evaluate(model, pairs) == Classification().evaluate(
        Net(model, call), Loader(data, 128, shuffle=False)
    )


@pytest.mark.parametrize(
    "batch", [(torch.zeros(1), torch.zeros(1), torch.zeros(1)), torch.zeros(1)]
)
def test_other_batches_raise(batch):
    with pytest.raises(ValueError, match="a tuple of image and label, not"):
        Classification().as_dict(batch)


def test_an_empty_loader_raises():
    with pytest.raises(ValueError, match="no batches"):
        Classification().evaluate(cnn(10), [])


class DKD(Objective):
    card = Card("Single only", labels=("single",))


class KD(Objective):
    card = Card("Any")

    def __init__(self, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label


def test_undefined_objectives_raise():
    Classification("single").check({"dkd": DKD(), "kd": KD()})
    with pytest.raises(
        ValueError,
        match=r"^objectives\.deep: DKD is undefined for multi-label classification "
        r"\(it is defined for single\)$",
    ):
        Classification("multi").check({"deep": DKD()})
    with pytest.raises(ValueError, match=r"objectives\.kd: set multi_label: true"):
        Classification("multi").check(Objectives({"kd": KD()}))
    Classification("multi").check({"kd": KD(multi_label=True)})
    Classification("binary").check({"kd": KD()})


def test_an_unknown_kind_raises():
    with pytest.raises(ValueError, match="not 'many'"):
        Classification("many")


def test_other_class_counts_or_names_raise():
    task, outputs = Classification(), {"logits": torch.zeros(2, 3)}
    task.check_classes(outputs, ["cat", "dog", "owl"])
    task.check_classes(outputs, ["cat", "dog", "owl"], ("cat", "dog", "owl"))
    with pytest.raises(
        ValueError, match="the student gives 3 logits, the data has 2 classes: cat, dog"
    ):
        task.check_classes(outputs, ["cat", "dog"], whose="student")
    with pytest.raises(
        ValueError, match="in another order: class 1 is 'owl' for the teacher and 'dog' in the data"
    ):
        task.check_classes(outputs, ["cat", "dog", "owl"], ["cat", "owl", "dog"])
    with pytest.raises(ValueError, match="not the same: class 2 is 'emu'"):
        task.check_classes(outputs, ["cat", "dog", "owl"], ["cat", "dog", "emu"])
