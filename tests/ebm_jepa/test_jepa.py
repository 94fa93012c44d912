"""Encoder and predictor, the two kinds of targets, and who gets a gradient."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ebm_jepa import jepa, joint, vit
from ebm_jepa.jepa import JEPA
from ebm_jepa.settings import JEPASettings
from ebm_jepa.vit import Encoder, Predictor


def encoder(image: tuple[int, int, int] = (3, 8, 12)) -> Encoder:
    torch.manual_seed(0)
    channels = image[0]
    return Encoder(image, 4, 16, 2, 2, [0.4] * channels, [0.3] * channels)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_patches_are_those_of_unfold() -> None:
    x = images(2, 3, 8, 12)
    expected = F.unfold((x - 0.4) / 0.3, 4, stride=4).transpose(1, 2)
    torch.testing.assert_close(encoder().patches(x), expected)


def test_all_patches_in_another_order_are_the_same_tokens() -> None:
    """Attention sees a set: only the positions, which go along, say where a token is."""
    network, x = encoder(), images(2, 3, 8, 12)
    order = torch.stack([torch.randperm(6), torch.randperm(6)])
    whole = network(x)
    assert whole.shape == (2, 6, 16)
    torch.testing.assert_close(network(x, order), vit.take(whole, order), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.pooled(x), whole.mean(dim=1))


def test_patches_that_are_left_out_do_not_matter() -> None:
    network, x = encoder(), images(2, 3, 8, 12)
    keep = torch.tensor([[0, 1], [0, 4]])
    other = x.clone()
    other[:, :, :, 8:] += 1.0  # patches 2 and 5
    torch.testing.assert_close(network(x, keep), network(other, keep))
    assert not torch.allclose(network(x), network(other))


def test_positions_tell_rows_from_columns() -> None:
    codes = vit.grid_positions(3, 5, 16)
    assert codes.shape == (15, 16)
    assert len({tuple(code) for code in codes.tolist()}) == 15
    table = codes.view(3, 5, 16)
    torch.testing.assert_close(table[:, 0, :8], table[:, 4, :8])
    torch.testing.assert_close(table[0, :, 8:], table[2, :, 8:])


def test_take() -> None:
    tokens = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[[3, 0]], [[1, 1]]])
    found = vit.take(tokens, index)
    assert found.shape == (2, 1, 2, 3)
    torch.testing.assert_close(found[0, 0, 0], tokens[0, 3])
    torch.testing.assert_close(found[1, 0, 1], tokens[1, 1])


def test_each_target_is_predicted_by_itself_and_at_its_place() -> None:
    torch.manual_seed(0)
    predictor = Predictor(2, 3, outside=16, width=8, depth=2, heads=2)
    context = torch.tensor([[0, 1], [2, 5]])
    tokens = torch.randn(2, 2, 16)
    targets = torch.tensor([[[3, 4], [4, 5]], [[0, 1], [3, 4]]])
    found = predictor(tokens, context, targets)
    assert found.shape == (2, 2, 2, 16)
    alone = predictor(tokens, context, targets[:, 1:])
    torch.testing.assert_close(found[:, 1:], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0, 0, 0], found[0, 0, 1]), "places differ"
    one = predictor(tokens[1:], context[1:], targets[1:])
    torch.testing.assert_close(found[1:], one, atol=1e-5, rtol=1e-4)
    swapped = predictor(tokens, context, targets.flip(2))
    torch.testing.assert_close(swapped, found.flip(2), atol=1e-5, rtol=1e-4)


def test_a_teachers_answer_gets_no_gradient_and_without_one_both_sides_do() -> None:
    predicted = images(2, 1, 3, 8).requires_grad_()
    answer = (5 * images(2, 1, 3, 8) + 2).requires_grad_()
    taught = jepa.prediction_error(predicted, answer, teacher=True)
    assert taught.item() == pytest.approx(((answer - predicted).abs() - 0.5).mean().item())
    taught.backward()
    assert answer.grad is None
    loss = jepa.prediction_error(predicted, answer, teacher=False)
    assert loss.item() == pytest.approx((predicted - answer).square().mean().item(), rel=1e-5)
    loss.backward()
    assert answer.grad is not None


def test_what_all_pictures_have_in_common_at_a_place_is_no_answer() -> None:
    """Each number is standardised over the batch by itself; one that never changes becomes 0."""
    tokens = 3 * images(50, 4, 2) + torch.arange(8.0).view(4, 2)
    tokens[:, 1, 0] = 7.0
    found = jepa.standardised(tokens)
    assert found.mean(dim=0).abs().max() < 1e-5
    deviation = found.std(dim=0, correction=0)
    assert deviation[1, 0] == 0
    deviation[1, 0] = 1
    torch.testing.assert_close(deviation, torch.ones(4, 2), atol=1e-3, rtol=0)


def test_teacher_decay_rises_to_one() -> None:
    found = [joint.teacher_decay(n, 0.9, 100) for n in (0, 50, 100, 500)]
    assert found == pytest.approx([0.9, 0.95, 1.0, 1.0])


def learner(anti_collapse: str) -> JEPA:
    settings = JEPASettings(
        anti_collapse=anti_collapse, steps=20, batch_size=8, patch=4, width=16, depth=1, heads=2,  # type: ignore[arg-type]
        task="blocks", regulariser=1.0,
        predictor_width=8, predictor_depth=1, targets=2, lr=1e-2, slices=16,
    )  # fmt: skip
    x = (255 * images(40, 1, 20, 16)).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    torch.manual_seed(0)
    network = Encoder((3, 20, 16), 4, 16, 1, 2, [0.5] * 3, [0.3] * 3)
    return JEPA(network, x, settings, 0, contextlib.nullcontext)


@pytest.mark.parametrize("anti_collapse", ["ema", "vicreg", "sigreg"])
def test_learner_learns_and_the_teacher_follows_where_there_is_one(anti_collapse: str) -> None:
    it = learner(anti_collapse)
    before = it.ema.average.embed.weight.clone()
    losses = [it.update(step, 1.0)["loss"].item() for step in range(12)]
    assert sum(losses[-4:]) < sum(losses[:4])
    moved = not torch.equal(it.ema.average.embed.weight, before)
    assert moved == (anti_collapse == "ema")
    assert (it.teacher is it.encoder) == (anti_collapse != "ema")
    assert not torch.equal(it.encoder.embed.weight, it.untrained.embed.weight)
    measures = it.measures()
    assert 1 <= measures["rank"].item() <= 8
    assert measures["deviation"].item() > 0
    if anti_collapse == "ema":
        assert all(p.grad is None for p in it.ema.average.parameters())


def test_regularisers_by_name() -> None:
    pooled = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert learner("ema").regulariser(pooled).item() == 0
    it = learner("vicreg")
    from ebm_jepa import regularisers

    expected = regularisers.variance_loss(pooled) + 0.04 * regularisers.covariance_loss(pooled)
    assert it.regulariser(pooled).item() == pytest.approx(expected.item())
    assert learner("sigreg").regulariser(pooled).item() > 0
