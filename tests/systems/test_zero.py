"""The ring in threads, the formula by hand, and the stages in real processes, beside one process
and FSDP2."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import RunFailed
from pretraining import GPT, Shape
from systems.zero.memory import live_bytes, model_state_bytes
from systems.zero.pipeline import bubble, gpipe_step
from systems.zero.ranks import Cluster
from systems.zero.ring import Ring, all_gather, mean_gradient, reduce_scatter, shard
from systems.zero.tensor_parallel import ParallelMLP
from systems.zero.worker import Worker, build_model

# --- the ring, in threads of this process ---


def in_a_ring(ranks: int, work: Callable[[int, Callable[[Tensor], Tensor]], Any]) -> list[Any]:
    """work(rank, swap) in a thread for each rank; `in_a_ring.sent` counts what is swapped."""
    lines: list[queue.Queue[Tensor]] = [queue.Queue() for _ in range(ranks)]
    found: list[Any] = [None] * ranks
    in_a_ring.sent = [0] * ranks  # type: ignore[attr-defined]

    def one(rank: int) -> None:
        def swap(tensor: Tensor) -> Tensor:
            in_a_ring.sent[rank] += tensor.numel()  # type: ignore[attr-defined]
            lines[(rank + 1) % ranks].put(tensor.clone())
            return lines[rank].get(timeout=5)

        try:
            found[rank] = work(rank, swap)
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for value in found:
        if isinstance(value, BaseException):
            raise value
    return found


def parts(ranks: int, shape: tuple[int, ...] = (3, 2)) -> list[list[Tensor]]:
    """parts[r][p]: what process r adds to piece p."""
    torch.manual_seed(ranks)
    return [[torch.randn(shape) for _ in range(ranks)] for _ in range(ranks)]


@pytest.mark.exercise("zero.ring.reduce_scatter")
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_process_ends_with_its_piece_of_the_sum(ranks: int) -> None:
    every = parts(ranks)
    before = [[p.clone() for p in mine] for mine in every]
    found = in_a_ring(ranks, lambda rank, swap: reduce_scatter(every[rank], rank, swap))
    for rank, piece in enumerate(found):
        torch.testing.assert_close(piece, torch.stack([mine[rank] for mine in every]).sum(0))
    for mine, old in zip(every, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, old, strict=True))
    assert in_a_ring.sent == [6 * (ranks - 1)] * ranks  # type: ignore[attr-defined]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_process_ends_with_all_pieces(ranks: int) -> None:
    own = [torch.full((2,), float(rank)) for rank in range(ranks)]
    found = in_a_ring(ranks, lambda rank, swap: all_gather(own[rank], rank, ranks, swap))
    for pieces in found:
        assert [int(p[0]) for p in pieces] == list(range(ranks))
    assert in_a_ring.sent == [2 * (ranks - 1)] * ranks  # type: ignore[attr-defined]


@pytest.mark.exercise("zero.ring.mean_gradient")
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_mean_gradient_is_that_of_the_whole_batch(ranks: int) -> None:
    """Autograd on the mean loss of all rows at once is the judge."""
    torch.manual_seed(0)
    weight, x = torch.randn(6), torch.randn(2 * ranks, 6)

    def gradient(rows: Tensor) -> Tensor:
        w = weight.clone().requires_grad_()
        (rows @ w).square().mean().backward()
        assert w.grad is not None
        return w.grad

    own = [gradient(rows) for rows in x.chunk(ranks)]
    before = [g.clone() for g in own]
    found = in_a_ring(ranks, lambda rank, swap: mean_gradient(own[rank], rank, ranks, swap))
    torch.testing.assert_close(torch.cat(found), gradient(x))
    assert all(torch.equal(a, b) for a, b in zip(own, before, strict=True))
    assert {len(piece) for piece in found} == {6 // ranks}


@pytest.mark.exercise("zero.ring.shard")
@pytest.mark.parametrize(
    ("count", "ranks"), [(12, 4), (10, 4), (9, 4), (3, 4), (1, 1), (0, 2), (7, 1)]
)
def test_shards_are_equal_pieces_with_zeros_at_the_end(count: int, ranks: int) -> None:
    flat = torch.arange(1, count + 1, dtype=torch.int32)
    pieces = [shard(flat, rank, ranks) for rank in range(ranks)]
    size = (count + ranks - 1) // ranks
    assert [len(p) for p in pieces] == [size] * ranks
    whole = torch.cat(pieces)
    assert torch.equal(whole[:count], flat)
    assert whole[count:].count_nonzero() == 0
    assert all(p.dtype == torch.int32 for p in pieces)


@pytest.mark.exercise("zero.ring.shard")
def test_a_shard_is_a_copy_where_the_tensor_is() -> None:
    flat = torch.ones(4)
    shard(flat, 0, 2).zero_()
    shard(flat, 1, 2).zero_()
    assert flat.sum() == 4
    assert shard(torch.empty(5, device="meta"), 1, 2).device.type == "meta"


@pytest.mark.exercise("zero.memory.model_state_bytes")
def test_the_formula_gives_the_papers_numbers() -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 processes, in gigabytes."""
    found = [model_state_bytes(7_500_000_000, 64, stage) / 1e9 for stage in range(4)]
    assert [round(f, 1) for f in found] == [120.0, 31.4, 16.6, 1.9]


@pytest.mark.exercise("zero.memory.model_state_bytes")
def test_the_formula_by_hand() -> None:
    assert [model_state_bytes(10, 5, s, 4, 6, 20) for s in range(4)] == [300, 140, 92, 60]
    assert [model_state_bytes(7, 1, s) for s in range(4)] == [112] * 4
    assert model_state_bytes(3, 2, 3) == 24


def test_live_bytes_counts_each_storage_once() -> None:
    before = live_bytes()
    a = torch.zeros(1000)
    kept = [a, a[:10], a.view(10, 100), nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))]
    kept[3].grad = torch.zeros(50, dtype=torch.bfloat16)
    assert live_bytes() - before == 4000 + 100 + 100
    del a, kept


# --- real processes ---

SHAPE = Shape(40, 12, 16, 2, 2)
STEPS = 4
CLIP = 0.5


def batches(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(40, (4, 12), generator=generator)
    return x, (3 * x + 1) % 40


class Everything:
    """In each of two processes: a worker for each stage and type, the pipeline, the MLP, FSDP2."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def zero(self, stage: int, weights: str) -> dict[str, Any]:
        rank, rows = self.ring.rank, list[dict[str, float]]()
        worker = Worker(self.ring, SHAPE, stage, weights, 1e-2, CLIP, 0)
        held: dict[str, Any] = {}
        for step in range(STEPS):
            if step == 2:
                saved = worker.state_dict()
                held = {"whole": worker.weights()}
                for unit in worker.zero.units:  # what is saved is all there is
                    unit.master.data.zero_()
                worker.load_state_dict(saved)
                del saved
            x, y = (each.chunk(2)[rank].numpy() for each in batches(step))
            rows.append(worker.step(x, y, look=step == STEPS - 1))
        return {"rows": rows, "weights": worker.weights(), **held}

    def pipeline(self, micro_batches: int) -> dict[str, Any]:
        torch.manual_seed(0)
        whole = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Linear(7, 3))
        part = nn.Sequential(*whole[:2]) if self.ring.rank == 0 else nn.Sequential(*whole[2:])
        x, y = torch.randn(6, 5), torch.randn(6, 3)
        loss = gpipe_step(part, self.ring.rank, 2, x, y, micro_batches, 7, F.mse_loss)
        return {"loss": loss, "gradients": [p.grad.numpy() for p in part.parameters()]}

    def mlp(self) -> dict[str, np.ndarray]:
        torch.manual_seed(0)
        up, down = nn.Linear(6, 8), nn.Linear(8, 6)
        x = torch.randn(3, 6, requires_grad=True)
        mine = ParallelMLP(up, down, self.ring.rank, 2)
        y = mine(x)
        y.square().sum().backward()
        assert x.grad is not None
        grads = {n: p.grad.numpy() for n, p in mine.named_parameters() if p.grad is not None}
        return {"y": y.detach().numpy(), "x": x.grad.numpy(), **grads}

    def fsdp(self) -> list[float]:
        """PyTorch's own ZeRO-3 on the same model and batches."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        model = build_model(SHAPE, 0)
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
        losses = []
        for step in range(STEPS):
            x, y = (each.chunk(2)[self.ring.rank] for each in batches(step))
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(self.ring.total(loss.detach())) / 2)
        return losses

    def fail(self, rank: int) -> None:
        if self.ring.rank == rank:
            raise ValueError("this one is broken")


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    with Cluster(2, Everything) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The same training in one process: losses, norms, weights before step 2 and at the end."""
    model = build_model(SHAPE, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    losses, norms, middle = [], [], {}
    for step in range(STEPS):
        if step == 2:
            middle = {k: v.clone().numpy() for k, v in model.state_dict().items()}
        x, y = batches(step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
        losses.append(loss.item())
    last = {k: v.numpy() for k, v in model.state_dict().items()}
    return {"losses": losses, "norms": norms, "middle": middle, "last": last}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_every_stage_trains_the_model_of_one_process(
    pair: Cluster, alone: dict[str, Any], stage: int, weights: str
) -> None:
    found = pair.call("zero", stage, weights)
    close = {"rtol": 1e-4, "atol": 2e-5} if weights == "fp32" else {"rtol": 2e-2, "atol": 2e-2}
    for each in found:
        losses = [row["loss"] for row in each["rows"]]
        np.testing.assert_allclose(losses, alone["losses"], **close)
        np.testing.assert_allclose([row["norm"] for row in each["rows"]], alone["norms"], **close)
        for when, expected in (("whole", alone["middle"]), ("weights", alone["last"])):
            assert each[when].keys() == expected.keys()
            for name, weight in each[when].items():
                if weights == "fp32":
                    np.testing.assert_allclose(weight, expected[name], err_msg=name, **close)
                else:  # Adam turns a tiny gradient's rounding into a whole step
                    assert np.abs(weight - expected[name]).mean() < 4e-3, name
        count = GPT(SHAPE).count_parameters()
        bytes_each = {"fp32": (4, 4, 8), "bf16": (2, 2, 12)}[weights]
        held = each["rows"][-1]["bytes"]
        # Units are padded to even lengths, and AdamW keeps a 4-byte step count for each.
        assert held == pytest.approx(model_state_bytes(count, 2, stage, *bytes_each), rel=0.01)
        sent = each["rows"][0]["sent"] * 2 / count  # (n - 1)/n is a half
        assert sent == pytest.approx(3 if stage == 3 else 2, rel=0.01)
    assert alone["losses"][-1] < alone["losses"][0]
    assert min(alone["norms"]) > CLIP, "clipping is not in use, so it is not compared"


def test_stage_3_is_fsdp2(pair: Cluster, alone: dict[str, Any]) -> None:
    """PyTorch's own is one more judge of the losses."""
    for losses in pair.call("fsdp"):
        np.testing.assert_allclose(losses, alone["losses"], rtol=1e-4)


@pytest.mark.parametrize("micro_batches", [1, 3, 6])
def test_the_pipeline_gives_the_gradients_of_the_whole(pair: Cluster, micro_batches: int) -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Linear(7, 3))
    x, y = torch.randn(6, 5), torch.randn(6, 3)
    loss = F.mse_loss(whole(x), y)
    loss.backward()
    found = pair.call("pipeline", micro_batches)
    assert found[0]["loss"] is None
    assert found[1]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    gradients = found[0]["gradients"] + found[1]["gradients"]
    for p, gradient in zip(whole.parameters(), gradients, strict=True):
        np.testing.assert_allclose(gradient, p.grad, rtol=1e-4, atol=1e-6)
    assert bubble(4, 1) == 0.75
    assert bubble(4, 8) == pytest.approx(3 / 11)
    assert bubble(1, 8) == 0


def test_the_divided_mlp_is_the_whole_one(pair: Cluster) -> None:
    torch.manual_seed(0)
    up, down = nn.Linear(6, 8), nn.Linear(8, 6)
    x = torch.randn(3, 6, requires_grad=True)
    y = down(F.gelu(up(x)))
    y.square().sum().backward()
    for rank, found in enumerate(pair.call("mlp")):
        np.testing.assert_allclose(found["y"], y.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["x"], x.grad, rtol=1e-4, atol=1e-5)
        for name, expected in (
            ("up_weight", up.weight.grad.chunk(2)[rank]), ("up_bias", up.bias.grad.chunk(2)[rank]),
            ("down_weight", down.weight.grad.chunk(2, dim=1)[rank]), ("down_bias", down.bias.grad),
        ):  # fmt: skip
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    with pytest.raises(ValueError, match="3 processes cannot divide a hidden width of 8"):
        ParallelMLP(up, down, 0, 3)


def test_a_process_that_fails_is_named_and_none_is_left() -> None:
    cluster = Cluster(2, Everything)
    with pytest.raises(RunFailed, match="process 1 has failed: ValueError: this one is broken"):
        cluster.call("fail", 1)
    assert not any(process.is_alive() for process in cluster.processes)
    with Cluster(1, Everything) as single:
        assert single.call("fail", 5) == [None]
        with pytest.raises(RunFailed, match="is of 2 processes, not 1"):
            single.load_state_dict({"0": {}, "1": {}})
    assert not any(process.is_alive() for process in single.processes)
