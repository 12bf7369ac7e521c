import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.images import ArrayData
from instil.data.labels import few_labels, labelled, relabel
from instil.data.samples import RealData
from instil.data.splits import balanced_order, splits


def data(label: list[int], classes: int = 4) -> ArrayData:
    return ArrayData(
        torch.zeros(len(label), 1, 1, 1),
        torch.tensor(label),
        [str(index) for index in range(classes)],
    )


def test_frequency_of_a_number_does_not_decide_whether_it_is_held_out():
    # Numbers that occur once, such as the highest prices, were never held out.
    target = torch.cat([torch.arange(300) % 10, 1000 + torch.arange(300)]).float()[:, None]
    whole = RealData({"features": torch.zeros(600, 1)}, target, ("price",))
    divided = splits({"train": whole}, 0.2, 0.2)
    for part in (divided.validation, divided.test, few_labels(whole, 100)):
        label = part.label[part.label != -100]
        assert 0.35 < (label >= 1000).double().mean() < 0.65


def test_yes_or_no_is_held_out_in_proportion():
    label = (torch.arange(100) < 20).float()[:, None]
    assert label[balanced_order(label, 0, proportional=True)[:10]].sum() == 2


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_few_labels_are_balanced(draw):
    label = draw.draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
    count = draw.draw(st.integers(1, len(label)))
    few = few_labels(data(label), count, seed=draw.draw(st.integers(0, 5)))
    is_labelled = few.label != -100
    assert is_labelled.sum() == count
    assert torch.equal(few.label[is_labelled], torch.tensor(label)[is_labelled])
    held, there = (
        few.label[is_labelled].bincount(minlength=4),
        torch.tensor(label).bincount(minlength=4),
    )
    most = held.max()
    assert all(
        held[c] == there[c] or held[c] >= most - 1 for c in range(4)
    )  # a class has fewer labels only if it has no more samples


def test_the_seed_decides_which():
    whole = data([0, 1, 2, 3] * 20)
    assert torch.equal(few_labels(whole, 8, 1).label, few_labels(whole, 8, 1).label)
    assert not torch.equal(few_labels(whole, 8, 1).label, few_labels(whole, 8, 2).label)
    assert (whole.label >= 0).all()


def test_images_without_label_stay_so():
    few = few_labels(data([-100, 0, -100, 1, 2, 3]), 4)
    assert few.label.tolist() == [-100, 0, -100, 1, 2, 3]


def test_rows_of_several_labels_count_as_one():
    many = ArrayData(torch.zeros(10, 1, 1, 1), torch.randint(0, 2, (10, 3)), ["a", "b", "c"])
    few = few_labels(many, 4)
    is_labelled = (few.label != -100).all(1)
    assert is_labelled.sum() == 4
    assert (few.label[~is_labelled] == -100).all()
    assert len(labelled(few)) == 4


@pytest.mark.parametrize("count", [-1, 7])
def test_more_labels_than_there_are_is_an_error(count):
    with pytest.raises(ValueError, match=f"num_labeled: {count} of 6"):
        few_labels(data([0, 1, 2, 3, 0, 1]), count)


def test_no_label_at_all():
    assert (few_labels(data([0, 1, 2, 3, 0, 1]), 0).label == -100).all()


def test_labelled_images_keep_their_index():
    part = labelled(data([-100, 0, -100, 1]))
    assert part.index.tolist() == [1, 3]
    assert part.label.tolist() == [0, 1]
    with pytest.raises(ValueError, match="no image has a label"):
        labelled(data([-100, -100]))


def test_relabel():
    whole = data([0, 1])
    assert relabel(whole, torch.tensor([3, 2])).label.tolist() == [3, 2]
    with pytest.raises(ValueError, match="3 labels for 2 images"):
        relabel(whole, torch.tensor([3, 2, 1]))


def test_what_is_held_out_is_stratified_disjoint_and_always_the_same():
    whole = data([0] * 60 + [1] * 30 + [2] * 10, 3)
    whole.image = torch.arange(100).float().reshape(100, 1, 1, 1) / 100
    divided = splits({"train": whole, "validation": data([0])}, 0.2, 0.2)
    rest, held = divided.train, divided.test
    assert held.label.bincount().tolist() == [12, 6, 2]
    assert not set(rest.image.flatten().tolist()) & set(held.image.flatten().tolist())
    assert len(rest) == 80
    assert rest.index.tolist() == list(range(80))
    torch.manual_seed(77)
    again = splits({"train": whole, "validation": data([0])}, 0.2, 0.2)
    assert torch.equal(again.test.image, held.image)


def test_samples_of_one_group_are_in_one_split():
    whole = data([0, 1] * 50, 2)
    group = [row // 5 for row in range(100)]
    divided = splits({"train": whole}, 0.2, 0.2, group)
    parts = (divided.train, divided.validation, divided.test)
    groups = [{group[row] for row in part.origin.tolist()} for part in parts]
    assert [len(part) for part in parts] == [65, 15, 20]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 20
    expected = splits({"train": whole}, 0.2, 0.2)
    # Groups of one sample, and one group of all samples, change nothing.
    for each in (list(range(100)), [0] * 100):
        same = splits({"train": whole}, 0.2, 0.2, each)
        assert torch.equal(same.test.origin, expected.test.origin)
        assert torch.equal(same.validation.origin, expected.validation.origin)


def test_validation_never_comes_from_test():
    train, test = data([0, 1] * 50, 2), data([1] * 30, 2)
    parts = splits({"train": train, "test": test}, 0.1, 0.5)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (90, 10, 30)
    assert parts.test is test
    both = splits({"train": train}, 0.1, 0.5)
    assert (len(both.train), len(both.validation), len(both.test)) == (45, 5, 50)


@pytest.mark.parametrize(
    ("parts", "share", "message"),
    [
        ({"test": data([0])}, 0.5, "no train set, only test"),
        ({"train": data([])}, 0.5, "train set has no images"),
        ({"train": data([0])}, 0.5, "for the test split leaves the test split empty"),
        ({"train": data([0, 1])}, 1.5, "between 0 and 1"),
    ],
)
def test_impossible_splits(parts, share, message):
    with pytest.raises(ValueError, match=message):
        splits(parts, share, share)
