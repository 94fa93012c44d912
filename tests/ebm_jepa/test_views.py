"""The JEPA of views: who gets a gradient, what is judged, and that it learns what views share."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ebm_jepa import regularisers, views
from ebm_jepa.settings import JEPASettings
from ebm_jepa.views import ViewEncoder, Views


def pictures(*shape: int) -> Tensor:
    draws = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)


def learner(anti_collapse: str, x: Tensor, lr: float = 3e-3, regulariser: float = 5.0) -> Views:
    settings = JEPASettings(
        task="views", anti_collapse=anti_collapse, network="small", channels=4, head_hidden=16,  # type: ignore[arg-type]
        head_dim=8, steps=30, batch_size=16, lr=lr, regulariser=regulariser, slices=32,
        ema_decay=0.9, crop=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    return Views(x, settings, 0, contextlib.nullcontext)


def test_a_teachers_answer_gets_no_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    predicted = torch.randn(3, 4, generator=draws).requires_grad_()
    answer = torch.randn(3, 4, generator=draws).requires_grad_()
    loss = views.agreement(predicted, answer)
    units = F.normalize(predicted, dim=1), F.normalize(answer, dim=1)
    squared = (units[0] - units[1]).square().sum(dim=1).mean()
    assert loss.item() == pytest.approx(squared.item() / 2, rel=1e-5)
    loss.backward()
    assert answer.grad is None
    assert predicted.grad is not None
    assert views.agreement(3 * answer, answer).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 20, 28)])
def test_pictures_of_any_shape_have_a_representation(shape: tuple[int, int, int]) -> None:
    it = learner("sigreg", pictures(24, *shape))
    images = pictures(5, *shape).float() / 255
    h = it.encoder.eval().pooled(images)
    assert h.shape == (5, it.encoder.width) == (5, 16)
    torch.testing.assert_close(it.encoder.pooled(images[2:3]), h[2:3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("anti_collapse", ["ema", "vicreg", "sigreg"])
def test_learns_and_the_teacher_follows_where_there_is_one(anti_collapse: str) -> None:
    it = learner(anti_collapse, pictures(40, 3, 32, 32))
    weights = it.ema.average.state_dict()["0.network.body.1.0.weight"].clone()
    losses = [it.update(step, 1.0)["loss"].item() for step in range(24)]
    assert sum(losses[-8:]) < sum(losses[:8])
    moved = not torch.equal(it.ema.average.state_dict()["0.network.body.1.0.weight"], weights)
    assert moved == (anti_collapse == "ema")
    assert (it.teacher is it.encoder) == (anti_collapse != "ema")
    assert isinstance(it.teacher, ViewEncoder)
    assert 1 <= it.measures()["rank"].item() <= 8
    if anti_collapse == "ema":
        assert all(p.grad is None for p in it.ema.average.parameters())
    before, after = it.untrained.state_dict(), it.encoder.state_dict()
    assert torch.equal(before["network.whiten.weight"], after["network.whiten.weight"])
    assert not torch.equal(before["network.body.1.0.weight"], after["network.body.1.0.weight"])


def test_the_loss_is_the_distance_of_two_views_and_the_regulariser_of_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = learner("vicreg", pictures(16, 3, 32, 32))
    batch = pictures(6, 3, 32, 32)
    seen: list[Tensor] = []
    original = it.embedder.forward
    monkeypatch.setattr(it.embedder, "forward", lambda v: seen.append(original(v)) or seen[-1])
    error, spread, z = it.losses(batch, 0)
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1]), "the views of a picture differ"
    assert error.item() == pytest.approx((seen[0] - seen[1]).square().mean().item(), rel=1e-5)
    both = [regularisers.vicreg(each, it.settings.covariance) for each in seen]
    assert spread.item() == pytest.approx(sum(t.item() for t in both) / 2, rel=1e-5)
    assert any(torch.equal(z, each) for each in seen)


def test_without_a_regulariser_the_embeddings_collapse() -> None:
    x = pictures(40, 3, 32, 32)
    spread, rank = {}, {}
    for weight in (0.0, 5.0):
        it = learner("sigreg", x, lr=1e-2, regulariser=weight)
        for step in range(30):
            it.update(step, 1.0)
        measures = it.measures()
        spread[weight], rank[weight] = measures["deviation"].item(), measures["rank"].item()
    assert spread[0.0] < 0.3 * spread[5.0]
    assert rank[0.0] < rank[5.0]
