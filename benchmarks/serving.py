"""Writing for 1, 8 and 64 requests at once: the engine of week 20, Hugging Face's generate, vLLM.

    python benchmarks/serving.py [--folder FOLDER] [--rounds 5] [--threads 1]
    make vllm       first, if vLLM is to take part

The same weights, prompts of 8 to 64 tokens, answers of up to 64 with temperature 0.8 and top-p
0.95, and an end of line ends an answer. All draw for themselves, so answers differ in length:
tokens a second are counted, those of the answers alone. They take turns, a first round is not
counted, and no cache survives a round. Without a folder a random model of week 7's size is used,
made as benchmarks/generate_vs_hf.py makes it; the token that it writes most often ends an answer
(with --whole none does).

vLLM gets its own process (`.venv-vllm`), float32, eager mode, no prefix cache, and as many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from pretraining import GPT, Shape, build_tokenizer, export, to_huggingface
from systems.engine.engine import Engine
from systems.evaluate import Race, by_engine, by_huggingface, ragged_prompts, tokens_per_second
from systems.models import open_folder
from systems.serve import VLLM
from systems.settings import EngineSettings

SERVE = r"""
import json, sys, time
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    asked = json.loads(open(sys.argv[1]).read())
    llm = LLM(model=asked["folder"], dtype="float32", enforce_eager=True, max_num_seqs=64,
              enable_prefix_caching=False, disable_log_stats=True)
    print("ready", flush=True)
    for line in sys.stdin:
        race = json.loads(line)
        params = [SamplingParams(temperature=race["temperature"], top_p=race["top_p"],
                                 max_tokens=race["new"], stop_token_ids=race["stop"], seed=i,
                                 ignore_eos=True, detokenize=False)
                  for i in range(len(race["prompts"]))]
        begun = time.perf_counter()
        prompts = [{"prompt_token_ids": p} for p in race["prompts"]]
        out = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - begun
        print("done", seconds, sum(len(o.outputs[0].token_ids) for o in out), flush=True)
"""


class VLLMProcess:
    """vLLM behind pipes; its messages go to a file."""

    def __init__(self, folder: Path, threads: int, work: Path) -> None:
        (work / "serve.py").write_text(SERVE)
        (work / "asked.json").write_text(json.dumps({"folder": str(folder)}))
        environment = os.environ | {
            "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR",
        }  # fmt: skip
        self.log = (work / "vllm.log").open("w+")
        self.process = subprocess.Popen(
            [str(VLLM), str(work / "serve.py"), str(work / "asked.json")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment,
        )  # fmt: skip
        self._until("ready")

    def _until(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.split()[:1] == [word]:
                return line.split()[1:]
        self.log.seek(0)
        raise SystemExit(f"vLLM has ended:\n{self.log.read()[-2000:]}")

    def rate(self, race: Race) -> float:
        """Tokens a second."""
        assert self.process.stdin is not None
        asked = {
            "prompts": race.prompts, "temperature": race.temperature, "top_p": race.top_p,
            "new": race.new, "stop": [race.stop] if race.stop >= 0 else [],
        }  # fmt: skip
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        seconds, tokens = self._until("done")
        return int(tokens) / float(seconds)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def random_model(folder: Path) -> None:
    """A model of week 7's size in `folder`, and a tokenizer that nobody needs."""
    torch.manual_seed(0)
    text = Path(__file__).read_text()
    tokenizer = build_tokenizer("bpe", "pydoc", text, 300)
    model = GPT(Shape(4096, 128, 192, 4, 4)).eval()
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=2 * 192**-0.5)
    export(model, tokenizer, folder)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--whole", action="store_true", help="no answer ends early")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as work:
        folder, random = args.folder, args.folder is None
        if random:
            folder = Path(work) / "model"
            random_model(folder)
        model, tokenizer = open_folder(folder)
        newline = tokenizer.encode("\n")
        stop = -1 if random or len(newline) != 1 else newline[0]
        tokens = torch.randint(model.shape.vocabulary, (4000,))
        if not random:
            from labkit.data import TextData, load
            from pretraining import encode

            tokens = encode(tokenizer, load("wikitext2", "pydoc", TextData).valid[:40_000])
        theirs: Any = to_huggingface(model)
        theirs.config.eos_token_id = theirs.generation_config.eos_token_id = None
        vllm = VLLMProcess(folder, args.threads, Path(work)) if VLLM.is_file() else None
        if vllm is None:
            print("vLLM is not installed and takes no part; type: make vllm")
        prompts = ragged_prompts(tokens, max(args.batches), 64, 0)
        if args.whole:
            stop = -1
        elif random:
            trial = Race(prompts, args.new, 0.8, 0.95, -1)
            first = by_engine(Engine(model, EngineSettings()), trial, 0)
            stop = Counter(token for answer in first for token in answer).most_common(1)[0][0]
        for batch in args.batches:
            race = Race(prompts[:batch], args.new, 0.0 if args.greedy else 0.8, 0.95, stop)
            rates: dict[str, list[float]] = {"engine": [], "Hugging Face": [], "vLLM": []}
            for turn in range(args.rounds + 1):
                engine = Engine(model, EngineSettings(share_prefixes=False))
                found = {}
                begun = time.perf_counter()
                answers = by_engine(engine, race, turn)
                found["engine"] = tokens_per_second(time.perf_counter() - begun, answers)
                begun = time.perf_counter()
                answers = by_huggingface(theirs, race, turn)
                found["Hugging Face"] = tokens_per_second(time.perf_counter() - begun, answers)
                if vllm is not None:
                    found["vLLM"] = vllm.rate(race)
                for name, rate in found.items():
                    if turn:
                        rates[name].append(rate)
            print(f"batch {batch}")
            for name, values in rates.items():
                if not values:
                    continue
                line = f"  {name:13} {statistics.median(values):9,.0f} tokens/s"
                if name != "engine":
                    ratios = [a / b for a, b in zip(rates["engine"], values, strict=True)]
                    line += f"   the engine is {spread(ratios)} times as fast"
                print(line)
        if vllm is not None:
            vllm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
