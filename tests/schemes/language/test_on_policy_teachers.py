"""The student's own text with several teachers, and with a teacher of another tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instil.core import Batch, Net
from instil.data.aligned import read_by_teacher
from instil.data.retokenization import Retokenizer
from instil.generation.options import Sampling
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.logits.gold import GOLD
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.objectives.logits.uld import ULD
from instil.schemes.language.on_policy import OnPolicy
from instil.tasks.language import call
from instil.teachers.frozen import Frozen
from instil.teachers.routed import Routed
from tests.data.test_retokenization import rows
from tests.schemes.texts import SAMPLING, net, timed


def test_each_row_learns_from_its_teacher_over_the_whole_vocabulary() -> None:
    teachers = [net(8, seed) for seed in (1, 2, 3)]
    routed = Routed([Frozen(teacher) for teacher in teachers], by="teacher_id")
    scheme = OnPolicy(net(8), routed, {"reverse_kl": ReverseKL()}, 1.0, SAMPLING)
    batch = timed() | {"teacher_id": torch.arange(16) % 3}
    scheme.prepare(batch)
    text = scheme.before_step(batch)
    assert (text["token"] >= 0).any()
    (update,) = scheme.step(text)
    student = scheme.student(text)["logits"].log_softmax(-1)
    logits = torch.stack([teacher(text)["logits"] for teacher in teachers])
    own = logits[batch["teacher_id"], torch.arange(16)].log_softmax(-1)
    divergence = (student.exp() * (student - own)).sum(-1)[text["valid"]]
    torch.testing.assert_close(update.losses["reverse_kl"], divergence.sum() / text["valid"].sum())


def transformer(vocabulary: int, seed: int) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(causal_transformer(vocabulary, 96, 8, 1, 2), call)


def reads_own_tokens(teacher: Net) -> Net:
    """Return a network that reads the teacher's keys of a batch."""

    def own_call(model: torch.nn.Module, batch: Batch, roles: object = None) -> object:
        return call(model, read_by_teacher(batch), roles=roles)

    return Net(teacher.model, own_call)


def clock() -> Batch:
    return {
        "step": torch.tensor(0),
        "seed": torch.tensor(0),
        "progress": torch.tensor(0.5),
    }


def test_equal_tokenizers_give_the_loss_of_one_tokenizer(tmp_path: Path) -> None:
    samples = rows(tmp_path, "bytes", "bytes")
    batch = samples.__getitems__(range(8)) | clock()
    own_keys = ("input_ids", "attention_mask", "valid", "label", "index")
    plain = {key: batch[key] for key in own_keys} | clock()
    teacher = transformer(257, 1)
    # ASCII only: other bytes may be no character, and then have no span of their own.
    sampling = Sampling(vocabulary=128, max_new_tokens=10)
    losses = []
    for rows_of_step, side in ((plain, teacher), (batch, reads_own_tokens(teacher))):
        scheme = OnPolicy(transformer(257, 2), Frozen(side), {"uld": ULD()}, 1.0, sampling)
        if rows_of_step is batch:
            with pytest.raises(ValueError, match="another tokenizer cannot read"):
                scheme.prepare(batch)
            scheme.set_retokenizer(Retokenizer(samples))
        scheme.prepare(rows_of_step)
        text = scheme.before_step(rows_of_step)
        (update,) = scheme.step(text)
        losses.append(update.losses["uld"].detach())
        assert text["valid"].sum() == 80
    assert losses[0] > 0
    torch.testing.assert_close(losses[0], losses[1])


def test_the_loss_on_student_text_falls(tmp_path: Path) -> None:
    samples = rows(tmp_path, "bpe:300", "bytes")
    batch = samples.__getitems__(range(16)) | clock()
    student = transformer(300, 2)
    scheme = OnPolicy(
        student,
        Frozen(reads_own_tokens(transformer(257, 1))),
        {"gold": GOLD()},
        1.0,
        Sampling(eos_token_id=samples.end, max_new_tokens=12),
    )
    scheme.set_retokenizer(Retokenizer(samples))
    scheme.prepare(batch)
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        text = scheme.before_step(batch)
        (update,) = scheme.step(text)
        loss = update.losses["gold"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
