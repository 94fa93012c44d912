"""A training step of CLIP: week 17's towers against transformers' CLIPModel, on the same machine.

    python benchmarks/clip_step.py [--batch 32] [--rounds 5] [--threads N]

Forward, backward and AdamW (PyTorch's fused one) on the same pictures and captions from the same
weights, in float32 and in bf16 autocast, at the shape of size tiny and at a quarter of ViT-B/32's
width and depth. Theirs uses PyTorch's own attention (sdpa) and computes its loss itself. The two
take turns, the losses must agree, and the median of the rounds' ratios is reported. A third line
is the step of `tune=projections`, which starts from features that were computed once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from multimodal.features import compute
from multimodal.huggingface import from_huggingface
from multimodal.losses import infonce

SHAPES = {
    "tiny": {"width": 128, "layers": 3, "heads": 4, "side": 32, "patch": 8, "context": 16},
    "a quarter of B/32": {
        "width": 192, "layers": 3, "heads": 3, "side": 224, "patch": 32, "context": 32,
    },
}  # fmt: skip
VOCABULARY = 1000
Step = Callable[[], tuple[float, float]]
"""To the seconds of a step, and its loss."""


def config_of(width: int, layers: int, heads: int, side: int, patch: int, context: int) -> Any:
    both = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }  # fmt: skip
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": context,
            "eos_token_id": VOCABULARY - 1}  # fmt: skip
    vision = {"image_size": side, "patch_size": patch}
    return CLIPConfig(text_config=both | text, vision_config=both | vision, projection_dim=width)


def stepper(parameters: Iterable[nn.Parameter], loss_of: Callable[[], Tensor], bf16: bool) -> Step:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def step() -> tuple[float, float]:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - begun, loss.item()

    return step


def compare(name: str, batch: int, rounds: int, bf16: bool) -> None:
    """Print seconds of a step on each side and the ratio."""
    torch.manual_seed(0)
    shape = SHAPES[name]
    config = config_of(**shape)
    theirs = CLIPModel._from_config(config, attn_implementation="sdpa").train()
    ours = from_huggingface(theirs).train()
    pictures = torch.randint(0, 256, (batch, 3, shape["side"], shape["side"]), dtype=torch.uint8)
    tokens = torch.randint(VOCABULARY - 1, (batch, shape["context"]))
    tokens[:, -1] = VOCABULARY - 1
    pixels = (pictures / 255 - ours.image.mean) / ours.image.std  # as their processor has done
    device = torch.device("cpu")
    seen, read = compute(ours.image, pictures, device), compute(ours.text, tokens, device)

    def our_loss() -> Tensor:
        image, text = ours.encode_images(pictures), ours.encode_texts(tokens)
        return infonce(image.float(), text.float(), ours.log_scale)

    def their_loss() -> Tensor:
        out = theirs(input_ids=tokens, pixel_values=pixels, return_loss=True)
        loss: Tensor = out.loss
        return loss

    heads = from_huggingface(theirs)

    def cached_loss() -> Tensor:
        image, text = heads.image_projection(seen), heads.text_projection(read)
        return infonce(image.float(), text.float(), heads.log_scale)

    steps = {
        "ours": stepper(ours.parameters(), our_loss, bf16),
        "transformers": stepper(theirs.parameters(), their_loss, bf16),
        "on features": stepper(
            [heads.image_projection.weight, heads.text_projection.weight, heads.log_scale],
            cached_loss, bf16,
        ),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {each: [] for each in steps}
    for turn in range(rounds + 1):
        losses = {}
        for each in sorted(steps, reverse=turn % 2 == 1):
            used, losses[each] = steps[each]()
            if turn:  # the first sets kernels and moments up
                seconds[each].append(used)
        apart = abs(losses["ours"] - losses["transformers"])
        assert apart < (0.1 if bf16 else 1e-3), f"the losses are {apart} apart"
    kind = "bf16 autocast" if bf16 else "float32"
    print(
        f"{name}, {kind}, {sum(p.numel() for p in ours.parameters()):,} parameters, {batch} pairs"
    )
    for each, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"  {each:13} {middle * 1e3:8.1f} ms ({min(times) * 1e3:.1f} to {max(times) * 1e3:.1f})"
        )
    for each in ("transformers", "on features"):
        ratios = [b / a for a, b in zip(seconds["ours"], seconds[each], strict=True)]
        print(
            f"  {each} takes {statistics.median(ratios):.3f} times as long as ours "
            f"({min(ratios):.3f} to {max(ratios):.3f}; {torch.get_num_threads()} threads)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    defaults = {"batch": 32, "rounds": 5, "threads": torch.get_num_threads()}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in SHAPES:
        for bf16 in (False, True):
            compare(name, args.batch, args.rounds, bf16)


if __name__ == "__main__":
    main()
