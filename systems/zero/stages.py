"""ZeRO's stages (Rajbhandari et al. 2020, sections 5 and 7): who holds which part of what.

    stage   each process holds                       a step sends, for Ψ parameters
    0       everything (plain data parallelism)      all-reduce of gradients                 2 Ψ
    1       its piece of the optimiser's states      reduce-scatter, all-gather of weights   2 Ψ
    2       ... and of the gradients                 the same                                2 Ψ
    3       ... and of the weights                   all-gather twice, reduce-scatter        3 Ψ

Parameters are kept in units: one for each layer, one for everything else. A unit is one flat row,
padded so that it can be cut evenly. At stage 3 a layer's weights are gathered before its forward
pass, dropped after it, gathered again before its backward pass and dropped again: a process never
has more than one layer, and what belongs to none, in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from systems.zero.ring import Ring, shard


class Unit:
    """Some parameters of a model as one flat row, and this process's piece of it."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        ring: Ring,
        stage: int,
        low: torch.dtype,
        lr: float,
    ) -> None:
        """`low`: the dtype of weights and gradients; with float32 there is no second copy of the
        weights."""
        self.parameters, self.ring, self.stage = list(parameters), ring, stage
        flat = torch.cat([p.detach().flatten() for p in parameters])
        pieces = [shard(flat, rank, ring.ranks) for rank in range(ring.ranks)]
        self.size = len(pieces[0])
        self.full = torch.cat(pieces).to(low)
        self._point_into_full()
        mixed = low != torch.float32
        # Stage 0 keeps the optimiser's states of all pieces, the others only their own.
        if stage == 0:
            master = torch.cat(pieces) if mixed else self.full
        elif stage < 3:
            master = pieces[ring.rank] if mixed else self.full.chunk(ring.ranks)[ring.rank]
        else:
            master = pieces[ring.rank]
        self.own = master.to(low) if stage == 3 else None
        """Stage 3: the piece of the weights; without mixed precision it is the master itself."""
        self.master = nn.Parameter(master)
        self.optimizer = torch.optim.AdamW([self.master], lr, weight_decay=0.0)
        self.gradient: Tensor | None = None
        """Stages 0 and 1: all of it; 2 and 3: this process's piece."""
        self.left = len(self.parameters)
        if stage == 3:
            self.drop()

    def _point_into_full(self) -> None:
        """Make every parameter a view of the flat row."""
        at = 0
        for p in self.parameters:
            p.data = self.full[at : at + p.numel()].view(p.shape)
            at += p.numel()

    def drop(self) -> None:
        """Free the weights (stage 3). The parameters stay views of the row, of which nothing is
        there until it is gathered; what autograd has saved of them comes back with it."""
        self.full.untyped_storage().resize_(0)

    def fetch(self) -> None:
        """Gather the weights from all processes (stage 3)."""
        if self.full.untyped_storage().nbytes() == 0:
            self.full.untyped_storage().resize_(self.full.numel() * self.full.element_size())
            assert self.own is not None
            self._fill(self.own)

    def _fill(self, own: Tensor) -> None:
        for piece, received in zip(
            self.full.chunk(self.ring.ranks), self.ring.gather(own), strict=True
        ):
            piece.copy_(received)

    def collect(self) -> None:
        """Called when the gradients are complete: exchange them, keep what the stage keeps."""
        row = torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])
        row = nn.functional.pad(row, (0, self.full.numel() - len(row)))
        for p in self.parameters:
            p.grad = None
        mine = self.ring.mean_gradient(row)
        if self.stage == 0:
            row = torch.cat(self.ring.gather(mine))
        elif self.stage == 1:
            row[self.ring.rank * self.size :][: self.size] = mine
        else:
            row = mine
        self.gradient = row

    def own_gradient(self) -> Tensor:
        """This process's piece of the mean gradient, (size,)."""
        assert self.gradient is not None
        if self.stage >= 2:
            return self.gradient
        return self.gradient[self.ring.rank * self.size :][: self.size]

    def update(self, scale: Tensor) -> None:
        """A step of AdamW with the gradient times `scale`; the new weights go to all processes."""
        assert self.gradient is not None
        gradient = self.gradient if self.stage == 0 else self.own_gradient()
        self.master.grad = gradient.float() * scale
        self.optimizer.step()
        self.master.grad = self.gradient = None
        new = self.master.detach().to(self.full.dtype)
        if self.stage == 0:
            self.full.copy_(new)
        elif self.stage == 3:
            self.own = new
        else:
            self._fill(new)

    def state_dict(self) -> dict[str, object]:
        return {"master": self.master.detach().clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore weights and optimiser; every process must do it, since weights are exchanged."""
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        with torch.no_grad():
            self.master.copy_(state["master"])  # type: ignore[arg-type]
        new = self.master.detach().to(self.full.dtype)
        if self.stage == 0:
            self.full.copy_(new)
        elif self.stage == 3:
            self.own = new
        else:
            self._fill(new)


class Zero:
    """A model whose states are divided among the processes of a ring."""

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], ring: Ring, stage: int,
        low: torch.dtype, lr: float,
    ) -> None:  # fmt: skip
        """Args:
        layers: those that become units of their own; the rest of the model is one more.
        """
        self.model, self.ring, self.stage = model, ring, stage
        inside = {p for layer in layers for p in layer.parameters()}
        rest = [p for p in model.parameters() if p not in inside]
        self.units = [Unit(list(layer.parameters()), ring, stage, low, lr) for layer in layers]
        self.units.append(Unit(rest, ring, stage, low, lr))
        for unit, module in zip(self.units, [*layers, model], strict=True):
            self._watch(unit, module)

    def _watch(self, unit: Unit, module: nn.Module) -> None:
        """Exchange gradients once a unit's are complete; at stage 3 fetch and drop weights."""

        def arrived(parameter: Tensor) -> None:
            unit.left -= 1
            if unit.left == 0:
                unit.left = len(unit.parameters)
                unit.collect()
                if self.stage == 3:
                    unit.drop()

        for parameter in unit.parameters:
            parameter.register_post_accumulate_grad_hook(arrived)
        if self.stage == 3:
            module.register_forward_pre_hook(lambda *_: unit.fetch())
            module.register_forward_hook(lambda *_: unit.drop())
            module.register_full_backward_pre_hook(lambda *_: unit.fetch())

    def norm(self) -> Tensor:
        """Norm of the whole gradient: each process has a piece, so squares are summed over all."""
        squares = sum(unit.own_gradient().float().square().sum() for unit in self.units)
        return self.ring.total(torch.as_tensor(squares)).sqrt()

    def update(self, clip: float) -> Tensor:
        """Clip by the norm of the whole gradient and update; returns the norm before clipping."""
        norm = self.norm()
        scale = (clip / norm.clamp(min=1e-12)).clamp(max=1.0)
        for unit in self.units:
            unit.update(scale)
        return norm

    def fetch(self) -> None:
        """Stage 3: gather all weights, to look at them; `drop` frees them again."""
        for unit in self.units:
            if self.stage == 3:
                unit.fetch()

    def drop(self) -> None:
        for unit in self.units:
            if self.stage == 3:
                unit.drop()

    def state_dict(self) -> dict[str, object]:
        return {str(i): unit.state_dict() for i, unit in enumerate(self.units)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for i, unit in enumerate(self.units):
            unit.load_state_dict(state[str(i)])  # type: ignore[arg-type]
