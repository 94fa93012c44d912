"""Sparse autoencoders against loops, autograd, and dictionaries that are known."""

from __future__ import annotations

import pytest
import torch

from robustness.mechanistic import sae
from robustness.mechanistic.jobs import Sparse
from robustness.mechanistic.settings import SAESettings
from robustness.mechanistic.sources import ToySource


def made(kind: sae.Kind = "l1", k: int = 2) -> sae.SparseAutoencoder:
    torch.manual_seed(0)
    model = sae.SparseAutoencoder(width=3, latents=7, kind=kind, k=k)
    for parameter in model.parameters():
        parameter.data.normal_()
    return model


@pytest.mark.exercise("mechanistic.sae.normalise_decoder")
def test_each_direction_gets_norm_1_and_keeps_its_sense() -> None:
    decoder = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, -0.01], [0.0, 0.0, 0.0], [30.0, 0.0, 0.0]])
    kept = decoder.clone()
    wanted = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(sae.normalise_decoder(decoder), wanted)
    assert torch.equal(decoder, kept)
    torch.testing.assert_close(sae.normalise_decoder(wanted[:1] * 1e-6), wanted[:1])


@pytest.mark.exercise("mechanistic.sae.project_gradient")
def test_what_is_left_of_the_gradient_does_not_change_the_norms() -> None:
    torch.manual_seed(0)
    decoder, gradient = 3 * torch.randn(6, 4), torch.randn(6, 4)
    kept = decoder.clone(), gradient.clone()
    left = sae.project_gradient(decoder, gradient)
    assert torch.equal(decoder, kept[0])
    assert torch.equal(gradient, kept[1])
    for row in range(6):
        d, g = decoder[row], gradient[row]
        assert (left[row] @ d).item() == pytest.approx(0, abs=1e-5)
        taken = g - left[row]  # is along d
        torch.testing.assert_close(taken, (g @ d) / (d @ d) * d, rtol=1e-4, atol=1e-6)
    along = sae.project_gradient(decoder, 2 * decoder)
    torch.testing.assert_close(along, torch.zeros(6, 4), rtol=0, atol=1e-5)


@pytest.mark.exercise("mechanistic.sae.count_idle")
def test_idle_counts_go_on_from_batch_to_batch() -> None:
    idle = torch.tensor([5, 5, 0, 7])
    kept = idle.clone()
    features = torch.tensor([[0.0, 0.0, 0.0, 1e-8], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    after = sae.count_idle(idle, features)
    assert after.tolist() == [8, 0, 3, 0]
    assert after.dtype == torch.int64
    assert torch.equal(idle, kept)
    assert sae.count_idle(after, features[:1]).tolist() == [9, 1, 4, 0]


@pytest.mark.exercise("mechanistic.sae.count_idle")
def test_a_latent_is_awake_wherever_in_the_batch_it_was_above_0() -> None:
    for row in range(4):
        features = torch.zeros(4, 2)
        features[row, 1] = 0.5
        assert sae.count_idle(torch.tensor([1, 1]), features).tolist() == [5, 0]


def test_cosines_are_looked_for_from_the_truth() -> None:
    truth = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    many = torch.tensor([[1.0, 0.0]] * 5)
    assert sae.mean_max_cosine(truth, many).item() == pytest.approx((1 + 0 - 1) / 3)
    whole = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [1.0, 1.0]])
    assert sae.mean_max_cosine(truth, whole).item() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["l1", "topk"])
def test_the_autoencoder_by_loops(kind: sae.Kind) -> None:
    model, x = made(kind), torch.randn(5, 3)
    f = model.encode(x)
    for row in range(5):
        values = []
        for j in range(7):
            before = (
                sum((x[row, c] - model.decoder_bias[c]) * model.encoder[c, j] for c in range(3))
                + model.encoder_bias[j]
            )
            values.append(max(0.0, float(before.detach())))
        if kind == "topk":
            least = sorted(values)[-2]
            values = [v if v >= least else 0.0 for v in values]
        torch.testing.assert_close(f[row], torch.tensor(values), rtol=1e-4, atol=1e-5)
    rebuilt = sum(f[:, j, None] * model.decoder[j] for j in range(7)) + model.decoder_bias
    torch.testing.assert_close(model(x), rebuilt)
    error, penalty = model.losses(x)
    torch.testing.assert_close(error, (x - rebuilt).square().sum() / 5)
    torch.testing.assert_close(penalty, f.sum() / 5)


def test_topk_keeps_no_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="k=8 must be from 1 to the 7 latents"):
        sae.SparseAutoencoder(3, 7, "topk", 8)
    assert sae.SparseAutoencoder(3, 7, "l1", 8).encode(torch.randn(1, 3)).shape == (1, 7)


def test_idle_is_counted_in_training_only() -> None:
    model, x = made(), torch.zeros(4, 3)
    model.encoder_bias.data.fill_(-100)
    model.losses(x)
    model.losses(x)
    assert model.idle.tolist() == [8] * 7
    model.eval()
    model.losses(x)
    assert model.idle.tolist() == [8] * 7


def test_dead_latents_start_anew_and_the_others_stay() -> None:
    model = made()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model.losses(torch.randn(9, 3))[0].backward()
    optimizer.step()
    model.hold_norm()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.idle.copy_(torch.tensor([0, 100, 0, 0, 99, 250, 0]))
    x = torch.randn(50, 3)
    draw = torch.Generator().manual_seed(0)
    assert sae.resample(model, optimizer, x, window=100, generator=draw) == 2
    dead, alive = [1, 5], [0, 2, 3, 4, 6]
    assert model.idle.tolist() == [0, 0, 0, 0, 99, 0, 0]
    for name, old in before.items():
        new = getattr(model, name)
        if name == "decoder_bias":
            assert torch.equal(new, old)
            continue
        kept = new[:, alive] if name == "encoder" else new[alive]
        assert torch.equal(kept, old[:, alive] if name == "encoder" else old[alive])
        moments = optimizer.state[new]["exp_avg"]
        gone, stays = (moments[:, i] if name == "encoder" else moments[i] for i in (dead, alive))
        assert (gone == 0).all()
        assert (stays != 0).any()
    torch.testing.assert_close(model.decoder[dead].norm(dim=1), torch.ones(2))
    offsets = sae.normalise_decoder(x - model.decoder_bias.detach())
    assert ((model.decoder[dead] @ offsets.T).amax(1) > 1 - 1e-5).all()  # directions of examples
    size = before["encoder"][:, alive].norm(dim=0).mean()
    torch.testing.assert_close(model.encoder[:, dead].norm(dim=0), (0.2 * size).expand(2))
    assert model.encoder_bias[dead].tolist() == [0, 0]
    assert sae.resample(model, optimizer, x, window=100, generator=draw) == 0


def test_explained_variance_is_1_for_all_and_0_for_the_mean() -> None:
    x = torch.randn(30, 4) + 5
    assert sae.explained_variance(x, x).item() == 1
    assert sae.explained_variance(x, x.mean(0).expand_as(x)).item() == pytest.approx(0, abs=1e-5)


def test_steps_hold_the_norms_and_the_penalty_rises() -> None:
    settings = SAESettings(
        source="toy", features=8, hidden=3, sparsity=0.8, toy_steps=60, latents=10, kind="l1",
        l1=5.0, rise=0.5, steps=8, batch_size=16, tests=40,
    )  # fmt: skip
    source = ToySource(settings, 0, torch.device("cpu"))
    assert source.truth is not None
    assert source.batch(4000, 9).square().mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(source.batch(5, 1, 2), source.batch(5, 1, 2))
    job = Sparse(settings, source, 0, torch.device("cpu"))
    for step, share in ((0, 0.25), (3, 1.0), (7, 1.0)):
        loss = job.loss(step).item()
        parts = job.parts["train/error"] + 5.0 * share * job.parts["train/l1"]
        assert loss == pytest.approx(parts.item(), rel=1e-5)
    optimizer = torch.optim.SGD(job.model.parameters(), 0.5)
    job.loss(0).backward()
    job.before_step()
    assert job.model.decoder.grad is not None
    along = (job.model.decoder.grad * job.model.decoder).sum(1)
    torch.testing.assert_close(along, torch.zeros(10), rtol=0, atol=1e-4)
    optimizer.step()
    job.after_step(0, optimizer)
    torch.testing.assert_close(job.model.decoder.norm(dim=1), torch.ones(10))
