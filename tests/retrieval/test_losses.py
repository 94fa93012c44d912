"""The losses against brute force in float64, term by term."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from retrieval.losses import contrastive_loss, distillation_loss


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_contrastive(q, c, gold, passage, temperature):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(q)):

        def score(j: int, i: int = i) -> float:
            cosine = (q[i] @ c[j]) / (q[i].norm() * c[j].norm())
            return math.exp(cosine.item() / temperature)

        below = score(i)
        for j in range(len(c)):
            if j != i and passage[j] != gold[i]:
                below += score(j)
        total -= math.log(score(i) / below)
    return total / len(q)


@pytest.mark.parametrize("temperature", [0.05, 0.7])
@pytest.mark.exercise("losses.contrastive_loss")
def test_contrastive_loss_by_brute_force(temperature: float) -> None:
    q, c = 3 * draw(4, 6), draw(9, 6, seed=1)
    gold = torch.tensor([5, 8, 5, 2])  # two questions about one passage
    passage = torch.tensor([5, 8, 5, 2, 1, 8, 3, 5, 0])  # and it is a hard negative of others, too
    before = [x.clone() for x in (q, c, gold, passage)]
    found = contrastive_loss(q, c, gold, passage, temperature)
    expected = brute_contrastive(q, c, gold, passage, temperature)
    assert found.item() == pytest.approx(expected)
    assert found.shape == ()
    for x, y in zip((q, c, gold, passage), before, strict=True):
        assert torch.equal(x, y)
    all_different = torch.arange(9)
    found = contrastive_loss(q, c, all_different[:4], all_different, temperature)
    logits = F.normalize(q) @ F.normalize(c).T / temperature
    assert found.item() == pytest.approx(F.cross_entropy(logits, torch.arange(4)).item())


@pytest.mark.exercise("losses.contrastive_loss")
def test_contrastive_loss_of_one_question_and_its_gradients() -> None:
    q, c = draw(1, 5).requires_grad_(), draw(1, 5, seed=1).requires_grad_()
    one = torch.tensor([3])
    assert contrastive_loss(q, c, one, one, 0.1).item() == 0, "nothing to tell it from"
    q, c = draw(3, 5).requires_grad_(), draw(5, 5, seed=1).requires_grad_()
    gold, passage = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 0, 7])
    contrastive_loss(q, c, gold, passage, 0.5).backward()
    assert q.grad is not None
    assert c.grad is not None
    assert q.grad.abs().sum(1).min() > 0
    assert c.grad.abs().sum(1).min() > 0
    torch.testing.assert_close((q.grad * q).sum(1), torch.zeros(3, dtype=torch.float64))
    big = contrastive_loss(1e4 * q, 1e-4 * c, gold, passage, 0.5)
    torch.testing.assert_close(big, contrastive_loss(q, c, gold, passage, 0.5))
    sharp = contrastive_loss(q, c, gold, passage, 1e-4)
    assert sharp.isfinite()
    single = contrastive_loss(q.float(), c.float(), gold, passage, 0.5)
    assert single.dtype == torch.float32
    meta = contrastive_loss(
        q.detach().to("meta"), c.detach().to("meta"), gold.to("meta"), passage.to("meta"), 0.5
    )
    assert meta.device.type == "meta"


@pytest.mark.exercise("losses.distillation_loss")
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_distillation_by_brute_force(temperature: float) -> None:
    """The reader's posterior is found by Bayes' rule with a uniform prior, passage by passage."""
    scores, likelihood = draw(3, 4), -3 * draw(3, 4, seed=1).abs()
    likelihood[1, 2] = -torch.inf
    before = scores.clone(), likelihood.clone()
    total = 0.0
    for row in range(3):
        joint = [0.25 * math.exp(x / temperature) for x in likelihood[row].tolist()]
        target = [x / sum(joint) for x in joint]
        weights = [math.exp(x) for x in scores[row].tolist()]
        mine = [x / sum(weights) for x in weights]
        total += sum(t * math.log(t / m) for t, m in zip(target, mine, strict=True) if t > 0)
    found = distillation_loss(scores, likelihood, temperature)
    assert found.item() == pytest.approx(total / 3)
    assert found.shape == ()
    assert torch.equal(scores, before[0])
    assert torch.equal(likelihood, before[1])


@pytest.mark.exercise("losses.distillation_loss")
def test_distillation_teaches_the_scores_alone() -> None:
    scores = draw(3, 4).requires_grad_()
    likelihood = (-draw(3, 4, seed=1).abs()).requires_grad_()
    with torch.no_grad():
        likelihood[2] = -torch.inf
        likelihood[0, 1] = -torch.inf
    loss = distillation_loss(scores, likelihood, 0.5)
    loss.backward()
    assert likelihood.grad is None
    assert scores.grad is not None
    target = (likelihood.detach()[:2] / 0.5).softmax(1)
    expected = (scores.detach()[:2].softmax(1) - target) / 3
    torch.testing.assert_close(scores.grad[:2], expected)
    assert not scores.grad[2].any(), "no passage has the answer: nothing is learned"
    known = distillation_loss(scores[:2], likelihood[:2], 0.5)
    torch.testing.assert_close(loss, known * 2 / 3)
    same = distillation_loss(likelihood.detach()[1:2] / 0.5, likelihood[1:2], 0.5)
    assert same.item() == pytest.approx(0, abs=1e-12)
    far = torch.tensor([[-2000.0, -1000.0]])
    assert distillation_loss(torch.zeros(1, 2), far, 1.0).item() == pytest.approx(math.log(2))
    sure = distillation_loss(torch.tensor([[0.0, 3000.0]]), torch.tensor([[0.0, 0.0]]), 1.0)
    assert sure.item() == pytest.approx(0.5 * (3000 - 2 * math.log(2)), rel=1e-4)
    half = distillation_loss(scores.detach().half(), likelihood.detach().half(), 0.5)
    assert half.dtype == torch.float16
    assert half.item() == pytest.approx(loss.item(), rel=2e-2)
    none = distillation_loss(torch.zeros(2, 3), torch.full((2, 3), -torch.inf), 1.0)
    assert none.item() == 0
    assert np.isfinite(none.item())
