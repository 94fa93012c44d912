"""Quantise a GPT-2 by every scheme, and race the engine against Hugging Face.

    python -m systems.train +size=tiny                  week 7's model
    python -m systems.train +size=tiny base=FOLDER      any GPT-2
    python -m systems.train                             GPT-2 itself
    python -m systems.serve folder=lab                  serve one
    python -m systems.zero.train +size=tiny             ZeRO: a part with a programme of its own

Nothing is trained here (except a small model at size smoke): a step is one scheme, and a run that
was interrupted goes on with the next. Calibration text comes from the training split, perplexity
from the validation split.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveInt
from systems.settings import EngineSettings, QuantizeSettings

ORDER = ["int8_tensor", "int8", "int8_zero", "llm_int8", "int4", "gptq", "awq"]
"""All schemes, in the order of the lab sheet."""


@dataclass
class Config(LabConfig):
    """Week 20: quantisation and serving."""

    data: str = "wikitext2"
    """Text for calibration (training split) and perplexity (validation split)."""
    base: str = "gpt2"
    """The model: lab://pretraining/tiny, a folder, or a name on the hub."""
    schemes: list[str] = field(default_factory=lambda: list(ORDER))
    """Schemes to try; schemes.py explains them."""
    eval_tokens: PositiveInt | None = None
    """Tokens of the validation text; null is all of it."""
    quantize: QuantizeSettings = field(default_factory=QuantizeSettings)
    """Quantisation."""
    batches: list[PositiveInt] = field(default_factory=lambda: [1, 8, 64])
    """Requests at once, in the race against Hugging Face."""
    prompt: PositiveInt = 64
    """Tokens of the longest prompt in the race; the shortest has an eighth."""
    new: PositiveInt = 64
    """Tokens of the longest answer."""
    temperature: NonNegativeFloat = 0.8
    """Temperature of the race's answers; 0 is greedy."""
    top_p: Annotated[float, Bounds(above=0, most=1)] = 0.95
    """Nucleus of the race's answers."""
    rounds: PositiveInt = 5
    """Rounds of the race; the median counts."""
    engine: EngineSettings = field(default_factory=EngineSettings)
    """The engine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from labkit.text import closest

        for name in self.schemes:
            if name not in ORDER:
                known = ", ".join(ORDER)
                raise UsageError(
                    f"schemes: {name!r} is unknown{closest(name, ORDER)}\nKnown: {known}"
                )
        if "int8" not in self.schemes:
            raise UsageError("schemes must contain int8, which the week's claim is about")
        if not self.batches:
            raise UsageError("batches=[] leaves nothing to measure; try batches=[1,8]")


@lab("systems", Config, needs_gpu=False)
def train(cfg: Config, run: Run) -> None:
    """A scheme, its codes on disk, the folder opened again, its perplexity; then the race."""
    import shutil
    from pathlib import Path

    from labkit.data import TextData
    from labkit.show.console import say
    from pretraining import encode
    from systems import packed
    from systems.evaluate import Race, compare, perplexity, ragged_prompts, same_greedy
    from systems.models import base_of, calibration
    from systems.report import report
    from systems.schemes import SCHEMES, quantize_model

    data = run.data(cfg.data, TextData)
    model, tokenizer = base_of(cfg.base, run, data)
    context, end = model.shape.context, tokenizer.eos_token_id
    if cfg.prompt + cfg.new > context:
        raise UsageError(
            f"prompt={cfg.prompt} and new={cfg.new} are more than the model's context of "
            f"{context}; try prompt={context // 2} new={context // 2}"
        )
    train_tokens = encode(tokenizer, data.train).to(run.device)
    valid = encode(tokenizer, data.valid)[: cfg.eval_tokens].to(run.device)
    text = calibration(train_tokens, cfg.quantize.windows, context, cfg.seed)

    found: dict[str, dict[str, float]] = {}
    run.track(found=found)
    names = ["float32", *cfg.schemes]
    folder = run.dir / "quantised"
    for step in run.steps(len(names)):
        name = names[step]
        if name == "float32":
            size = packed.as_float(model, folder / name)
            opened = model
        else:
            scheme = SCHEMES[name]
            matrices = quantize_model(model, scheme, cfg.quantize, text)
            packed.save(folder / name, model, matrices, scheme, cfg.quantize.threshold, tokenizer)
            size = packed.size_on_disk(folder / name)
            opened = packed.load(folder / name).to(run.device)
        found[name] = {"perplexity": perplexity(opened, valid, end), "bytes": float(size)}
        say(f"{name:12} perplexity {found[name]['perplexity']:.3f}, {size:,} bytes")
        run.log({f"perplexity/{name}": found[name]["perplexity"]}, step)
    run.save()

    newline = encode(tokenizer, "\n")
    stop = int(newline[0]) if len(newline) == 1 else end
    prompts = ragged_prompts(train_tokens.cpu(), max(16, *cfg.batches), cfg.prompt, cfg.seed)
    races = [
        Race(prompts[:batch], cfg.new, cfg.temperature, cfg.top_p, stop) for batch in cfg.batches
    ]
    rates = compare(model, races, cfg.engine, cfg.rounds)
    for batch, (ours, theirs) in zip(cfg.batches, rates, strict=True):
        say(f"batch {batch}: engine {ours:,.0f}, Hugging Face {theirs:,.0f} tokens a second")
    same = same_greedy(model, prompts[:16], cfg.new, cfg.engine)

    def keep(place: Path) -> None:
        shutil.copytree(folder / "int8", place, dirs_exist_ok=True)

    run.publish(keep)
    run.result(report(run, found, cfg.batches, rates, same))


if __name__ == "__main__":
    train()
