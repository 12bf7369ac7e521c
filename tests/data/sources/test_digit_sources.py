"""The digits as scenes, texts, a graph and captioned pictures."""

from __future__ import annotations

import pytest
import torch

from instil.core import UNLABELLED
from instil.data.loader import Loader
from instil.data.sources.digit_boxes import NOISE, digit_boxes
from instil.data.sources.digit_captions import COLOURS, NAMES, caption, digit_captions
from instil.data.sources.digit_graph import Nodes, digit_graph
from instil.data.sources.digit_poses import digit_poses
from instil.data.sources.digit_scenes import digit_scenes
from instil.data.sources.digit_tokens import FIRST, PADDING, START, digit_tokens
from instil.data.sources.digits import digits
from instil.networks.gcn import gcn


def test_scenes_name_every_pixel() -> None:
    made = digit_scenes(9, 12)
    assert [len(part) for part in (made.train, made.validation, made.test)] == [9, 3, 3]
    assert made.classes[:2] == ("background", "0")
    assert made.train.facts == {"classes": 11, "channels": 1, "size": 12}
    batch = digit_scenes(60).train.__getitems__(range(60))
    assert batch["image"].shape == (60, 1, 16, 16)
    assert batch["image"].min() >= 0
    assert batch["image"].max() <= 1
    assert torch.equal(batch["valid"], batch["label"] != UNLABELLED)
    assert not batch["valid"].all(), "digits overlap somewhere"
    assert set(batch["label"].unique().tolist()) == {UNLABELLED, *range(11)}
    ink, ground = batch["label"] > 0, batch["label"] == 0
    assert batch["image"][:, 0][ink].min() >= 0.3 > batch["image"][:, 0][ground].max()
    present = torch.stack(
        [(batch["label"] == number).flatten(1).any(1) for number in range(1, 11)], 1
    ).sum(1)
    assert present.max() <= 3


def test_scenes_are_the_same_every_time() -> None:
    one, two = digit_scenes(6), digit_scenes(6)
    assert torch.equal(one.train.label, two.train.label)
    assert not torch.equal(one.validation.label, one.test.label)


@pytest.mark.parametrize(
    ("options", "smallest"), [({"scenes": 2}, 3), ({"most": 1}, 2), ({"size": 7}, 8)]
)
def test_impossible_scenes(options: dict[str, int], smallest: int) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: .*at least {smallest}"):
        digit_scenes(**options)


def test_texts_say_where_the_ink_is() -> None:
    made, source = digit_tokens(), digits()
    batch = made.test.__getitems__(range(500))
    ids, image = batch["input_ids"], source.test.inputs(torch.arange(500))["image"].flatten(1)
    assert (ids[:, 0] == START).all()
    assert torch.equal(batch["attention_mask"], (ids != PADDING).long())
    for row in (0, 123, 499):
        places = [place - FIRST for place in ids[row, 1:].tolist() if place != PADDING]
        assert places == (image[row] >= 0.5).nonzero().flatten().tolist()
    assert ids.max() < made.train.facts["vocabulary"]
    assert ids.shape[1] == made.train.facts["length"]
    assert torch.equal(batch["label"], source.test.label)
    assert (batch["attention_mask"].sum(1) < ids.shape[1]).any()


def test_nodes_are_joined_to_those_like_them() -> None:
    made = digit_graph(3)
    assert isinstance(made.train, Nodes)
    source, target = made.train.edges
    assert (source != target).all()
    assert len(made.train.edges.unique(dim=1)[0]) == len(source)
    assert torch.equal(made.train.edges.flip(0).unique(dim=1), made.train.edges.unique(dim=1)), (
        "both ways"
    )
    label = torch.cat([made.train.label, made.validation.label, made.test.label])
    assert (label[source] == label[target]).double().mean() > 0.9
    assert torch.equal(made.test.index, torch.arange(1297, 1797))


def test_what_a_net_says_of_a_node_does_not_depend_on_the_batch() -> None:
    made = digit_graph()
    torch.manual_seed(0)
    net = gcn(**made.train.facts, width=8).double()

    def said(rows: list[int]) -> torch.Tensor:
        batch = made.train.__getitems__(rows)
        assert batch["valid"].tolist() == [True] * len(rows) + [False] * (
            len(batch["x"]) - len(rows)
        )
        assert (batch["label"][len(rows) :] == UNLABELLED).all()
        assert torch.equal(batch["index"][: len(rows)], made.train.index[rows])
        return net(batch["x"].double(), batch["edge_index"])[: len(rows)]

    together = said([5, 900, 17, 3])
    torch.testing.assert_close(together, torch.cat([said([5, 900]), said([17]), said([3])]))
    assert made.train.__getitems__([5])["x"].shape[0] < 100


def test_an_epoch_of_nodes_has_each_once_and_neighbours_together() -> None:
    train = digit_graph().train
    loader = Loader(train, 100, seed=1)
    rows = torch.cat(list(loader.micro_batch_indices()))
    assert sorted(rows.tolist()) == list(range(1000))
    loader.set_epoch(1)
    assert not torch.equal(rows, torch.cat(list(loader.micro_batch_indices())))

    def joined(nodes: torch.Tensor) -> int:
        batch = train.__getitems__(nodes)
        return int(batch["valid"][batch["edge_index"]].all(0).sum())

    assert joined(rows[:100]) > 2 * joined(
        torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100]
    )


@pytest.mark.parametrize("options", [{"neighbours": 0}, {"hops": 0}])
def test_impossible_graphs(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: 0 is .*Expected"):
        digit_graph(**options)


def test_captions_say_what_is_seen() -> None:
    made = digit_captions()
    batch = made.train.__getitems__(range(1000))
    colours = torch.tensor(list(COLOURS.values()))
    for row in range(0, 1000, 111):
        words = caption(batch["input_ids"][row]).split()
        assert NAMES[int(batch["label"][row])] in words
        colour = next(number for number, name in enumerate(COLOURS) if name in words)
        image = batch["image"][row]
        torch.testing.assert_close(
            image, image.amax(0, keepdim=True) * colours[colour][:, None, None]
        )
    assert torch.equal(
        batch["attention_mask"].sum(1),
        torch.tensor([len(caption(ids).split()) for ids in batch["input_ids"]]),
    )
    assert made.train.facts == {
        "classes": 10,
        "channels": 3,
        "size": 8,
        "vocabulary": 25,
        "length": 5,
    }
    assert not torch.equal(made.test.inputs(torch.arange(10))["input_ids"], batch["input_ids"][:10])


def test_poses_say_how_a_digit_was_put() -> None:
    made = digit_poses(16)
    assert (made.kind, made.classes) == ("real", ("angle", "right", "down"))
    assert made.train.facts == {"classes": 3, "channels": 1, "size": 16}
    batch, source = (
        made.train.__getitems__(range(1000)),
        digits().train.inputs(torch.arange(1000))["image"],
    )
    image, (angle, right, down) = batch["image"], batch["label"].T
    assert 0.99 < batch["label"].abs().max() <= 1
    assert torch.equal(digit_poses(16).train.label, made.train.label)

    def middle(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the ink, right and down of the image's middle, in pixels."""
        place = torch.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2
        return (image * place).sum((1, 2, 3)) / image.sum((1, 2, 3)), (image * place[:, None]).sum(
            (1, 2, 3)
        ) / image.sum((1, 2, 3))

    x, y = middle(source)
    turn = torch.deg2rad(60 * angle)
    torch.testing.assert_close(
        middle(image)[0], x * turn.cos() + y * turn.sin() + 4 * right, atol=0.5, rtol=0
    )
    torch.testing.assert_close(
        middle(image)[1], y * turn.cos() - x * turn.sin() + 4 * down, atol=0.5, rtol=0
    )


@pytest.mark.parametrize("options", [{"size": 9}, {"angle": 0}, {"angle": 181}])
def test_impossible_poses(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: .*Expected"):
        digit_poses(**options)


def test_boxes_hold_the_ink() -> None:
    made = digit_boxes(18, 12)
    assert made.train.facts == {"classes": 10, "channels": 1, "size": 18, "bins": 19}
    batch = made.test.__getitems__(range(500))
    assert torch.equal(batch["label"], digits().test.label)
    assert batch["image"].shape == (500, 1, 18, 18)
    assert torch.equal(digit_boxes(18, 12).test.tensors["image"], batch["image"])
    for image, edges in zip(batch["image"][:, 0], batch["box"].long().tolist(), strict=True):
        left, top, right, bottom = edges
        row, column = (image >= NOISE).nonzero().T
        assert [column.min(), row.min(), column.max() + 1, row.max() + 1] == edges
        assert 0 <= left < right <= 18
        assert 0 <= top < bottom <= 18
    wide = batch["box"][:, 2] - batch["box"][:, 0]
    assert wide.min() < 5
    assert wide.max() > 10


@pytest.mark.parametrize("options", [{"largest": 7}, {"size": 12, "largest": 13}])
def test_impossible_boxes(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^largest: .*Expected 8 <= largest <= size"):
        digit_boxes(**options)
