"""The losses by loops over their sums, against transformers' own, and at their limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from multimodal import losses

MEANING = [3, 1, 3, 0, 1, 3]


def pair(n: int = 6, d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures and captions of unlike lengths, each near its own, float64 (n, d)."""
    g = torch.Generator().manual_seed(seed)
    image, noise = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    stretched = 0.2 + 5 * torch.rand(n, 1, generator=g, dtype=torch.float64)
    return image * stretched, (image + noise) * stretched.flip(0)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def infonce_by_loops(image: Tensor, text: Tensor, scale: float, meaning: list[int]) -> float:
    n, total = len(image), 0.0
    for i in range(n):
        captions, pictures = 0.0, 0.0
        for j in range(n):
            if i == j or meaning[i] != meaning[j]:
                captions += math.exp(scale * cosine(image[i], text[j]))
                pictures += math.exp(scale * cosine(image[j], text[i]))
        own = scale * cosine(image[i], text[i])
        total += math.log(captions) - own + math.log(pictures) - own
    return total / (2 * n)


def siglip_by_loops(
    image: Tensor, text: Tensor, scale: float, bias: float, meaning: list[int]
) -> float:
    n, total = len(image), 0.0
    for i in range(n):
        for j in range(n):
            if i == j or meaning[i] != meaning[j]:
                sign = 1 if i == j else -1
                logit = sign * (scale * cosine(image[i], text[j]) + bias)
                total += math.log(1 + math.exp(-logit))
    return total / n


def log(scale: float) -> Tensor:
    return torch.tensor(scale, dtype=torch.float64).log()


# --- alike ---


@pytest.mark.exercise("losses.alike")
def test_alike_names_other_pictures_of_the_same() -> None:
    meaning = torch.tensor(MEANING)
    found = losses.alike(meaning)
    assert found.dtype == torch.bool
    for i in range(6):
        for j in range(6):
            assert found[i, j].item() == (i != j and MEANING[i] == MEANING[j])
    assert meaning.tolist() == MEANING


@pytest.mark.exercise("losses.alike")
def test_alike_of_a_batch_without_twins_or_of_one() -> None:
    assert not losses.alike(torch.arange(4)).any()
    assert losses.alike(torch.tensor([5])).tolist() == [[False]]
    both = losses.alike(torch.tensor([7, 7]))
    assert both.tolist() == [[False, True], [True, False]]
    assert losses.alike(torch.empty(3, dtype=torch.int64, device="meta")).device.type == "meta"


# --- InfoNCE ---


@pytest.mark.exercise("losses.infonce")
@pytest.mark.parametrize("scale", [0.5, 1.0, 20.0])
@pytest.mark.parametrize(("n", "d"), [(6, 5), (1, 3), (2, 7)])
def test_infonce_by_loops(n: int, d: int, scale: float) -> None:
    image, text = pair(n, d)
    expected = infonce_by_loops(image, text, scale, list(range(n)))
    before = image.clone(), text.clone()
    loss = losses.infonce(image, text, log(scale))
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.equal(image, before[0])
    assert torch.equal(text, before[1])


@pytest.mark.exercise("losses.infonce")
def test_infonce_leaves_out_what_means_the_same() -> None:
    image, text = pair()
    found = losses.infonce(image, text, log(3.0), torch.tensor(MEANING)).item()
    assert found == pytest.approx(infonce_by_loops(image, text, 3.0, MEANING), rel=1e-9)
    assert found < losses.infonce(image, text, log(3.0)).item()
    same = losses.infonce(image, text, log(3.0), torch.zeros(6, dtype=torch.int64))
    assert same.item() == pytest.approx(0, abs=1e-12)  # nothing is left to be told apart from


@pytest.mark.exercise("losses.infonce")
def test_infonce_is_the_loss_of_transformers() -> None:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    image, text = pair(8, 4, seed=1)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (image, text)]
    theirs = image_text_contrastive_loss(7.0 * unit[1] @ unit[0].T)
    assert losses.infonce(image, text, log(7.0)).item() == pytest.approx(theirs.item(), rel=1e-9)


@pytest.mark.exercise("losses.infonce")
def test_infonce_of_orthogonal_pairs_has_a_closed_form() -> None:
    """All wrong cosines are 0 and the right ones 1; of unrelated vectors it is the logarithm of the
    batch.
    """
    n, scale = 5, 4.0
    image = 3 * torch.eye(n)
    expected = math.log(1 + (n - 1) * math.exp(-scale))
    found = losses.infonce(image, 0.1 * torch.eye(n), torch.tensor(scale).log())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4)
    equal = torch.ones(n, 2)
    assert losses.infonce(equal, equal, torch.tensor(1.0)).item() == pytest.approx(math.log(n))


@pytest.mark.exercise("losses.infonce")
def test_infonce_is_finite_at_a_large_scale_and_moves_all_three() -> None:
    image, text = pair()
    arguments = [image.requires_grad_(), text.requires_grad_(), log(1e4).requires_grad_()]
    losses.infonce(*arguments, torch.tensor(MEANING)).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in arguments)
    assert all(each.grad.abs().sum() > 0 for each in arguments)  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(
        lambda *v: losses.infonce(*v, torch.tensor(MEANING[:4])),
        [x.detach()[:4].requires_grad_() for x in (image, text)] + [log(2.0).requires_grad_()],
    )


@pytest.mark.exercise("losses.infonce")
def test_infonce_stays_on_its_device() -> None:
    image = torch.empty(4, 3, device="meta")
    scale, meaning = (
        torch.empty((), device="meta"),
        torch.empty(4, dtype=torch.int64, device="meta"),
    )
    assert losses.infonce(image, image, scale, meaning).device.type == "meta"


# --- SigLIP ---


@pytest.mark.exercise("losses.siglip")
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (3.0, 1.5)])
@pytest.mark.parametrize(("n", "d"), [(6, 5), (1, 3)])
def test_siglip_by_loops(n: int, d: int, scale: float, bias: float) -> None:
    image, text = pair(n, d)
    before = image.clone(), text.clone()
    b = torch.tensor(bias, dtype=torch.float64)
    loss = losses.siglip(image, text, log(scale), b)
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    expected = siglip_by_loops(image, text, scale, bias, list(range(n)))
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(image, before[0])
    assert torch.equal(text, before[1])


@pytest.mark.exercise("losses.siglip")
def test_siglip_leaves_out_what_means_the_same() -> None:
    image, text = pair()
    b = torch.tensor(-1.0, dtype=torch.float64)
    found = losses.siglip(image, text, log(4.0), b, torch.tensor(MEANING)).item()
    assert found == pytest.approx(siglip_by_loops(image, text, 4.0, -1.0, MEANING), rel=1e-9)


@pytest.mark.exercise("losses.siglip")
def test_siglip_of_large_logits() -> None:
    """Pairs that are surely right cost nothing, those surely wrong as much as their logit."""
    image, scale = torch.eye(3), torch.tensor(1e4).log()
    good = losses.siglip(image, image, scale, torch.tensor(-5e3))
    assert good.item() == pytest.approx(0, abs=1e-6)
    bad = losses.siglip(image, -image, scale, torch.tensor(-5e3))
    assert bad.item() == pytest.approx(1.5e4, rel=1e-3)
    assert bad.dtype == torch.float32
    short = [each.bfloat16() for each in (image, image, scale, torch.tensor(-1.0))]
    assert losses.siglip(*short).dtype == torch.bfloat16


@pytest.mark.exercise("losses.siglip")
def test_siglip_has_all_gradients_and_stays_on_its_device() -> None:
    image, text = pair(4, 3)
    b = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *v: losses.siglip(*v, torch.tensor(MEANING[:4])),
        [image.requires_grad_(), text.requires_grad_(), log(2.0).requires_grad_(), b],
    )
    x, scale = torch.empty(4, 3, device="meta"), torch.empty((), device="meta")
    meaning = torch.empty(4, dtype=torch.int64, device="meta")
    assert losses.siglip(x, x, scale, scale, meaning).device.type == "meta"


# --- the logit scale ---


@pytest.mark.exercise("losses.clamp_logit_scale")
@pytest.mark.parametrize(
    ("scale", "most", "after"),
    [(250.0, 100.0, 100.0), (99.0, 100.0, 99.0), (0.01, 100.0, 0.01), (30.0, 20.0, 20.0)],
)
def test_the_scale_is_kept_below_its_limit(scale: float, most: float, after: float) -> None:
    parameter = nn.Parameter(log(scale))
    optimizer = torch.optim.SGD([parameter], 0.1)
    losses.clamp_logit_scale(parameter, most)
    assert parameter.exp().item() == pytest.approx(after, rel=1e-9)
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert optimizer.param_groups[0]["params"][0] is parameter


@pytest.mark.exercise("losses.clamp_logit_scale")
def test_a_scale_at_the_limit_still_has_a_gradient() -> None:
    parameter = nn.Parameter(torch.tensor(9.0))
    losses.clamp_logit_scale(parameter, 100.0)
    assert parameter.item() == pytest.approx(math.log(100), rel=1e-6)
    image, text = torch.eye(3), torch.eye(3).roll(1, 0)
    losses.infonce(image, text, parameter).backward()
    assert parameter.grad is not None
    assert parameter.grad.item() != 0
