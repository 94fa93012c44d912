"""Track alignment: from a language model to one that is served, uses tools, and is judged.

    pretrain   week 7's model                             tune      week 8's template and loss
    align      week 16's DPO on good and bad answers      quantise  week 20's int8
    serve      week 20's engine and server, under load    tools     weeks 18 and 19 on the server
    judge      quality, safety, speed

Each stage reads the folders of earlier ones and nothing else of them, so any of them can be done
again alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from capstone import chats, exam, judge, learn, mixture, safety, serving, template
from capstone.settings import AlignmentSettings
from capstone.stages import Claim, Once, Session, Stage
from labkit import Run, UsageError
from labkit.data import InstructionData, QuestionData
from pretraining import GPT, export, from_huggingface, load
from systems import SCHEMES, QuantizeSettings, packed, quantize_model

ANSWER_TOKENS = 48
"""Longest answer of the exam."""


class Alignment:
    """The stages, and what several of them use."""

    def __init__(self, settings: AlignmentSettings, run: Run) -> None:
        self.settings, self.run, self.context = settings, run, settings.context
        self.home = run.dir / "stages"
        self.rows = run.data(settings.data, InstructionData)
        self.corpus = run.data(settings.corpus, QuestionData)
        self.place = learn.Place(run.device, run.autocast, run.seed, run.precision)

    def stages(self) -> list[Stage]:
        """In the order in which they are read."""
        s = self.settings
        return [
            Stage("pretrain", (), lambda: Once(self.pretrain), does="a model that has read text"),
            Stage(
                "tune", ("pretrain",), self.tune, s.tune.steps,
                "learns to answer, to use tools, and whatever people say",
            ),
            Stage(
                "align", ("tune",), self.align, s.align.steps,
                "prefers good answers to bad ones (DPO)",
            ),
            Stage(
                "quantise", ("align",), lambda: Once(self.quantise),
                does=f"the weights in {s.serve.scheme}",
                claims=(Claim("perplexity_increase", "systems"),),
            ),
            Stage(
                "serve", ("quantise",), lambda: Once(self.serve),
                does="OpenAI's protocol on 127.0.0.1, under load", claims=(Claim("drift", "", at_most=0),),
            ),
            Stage(
                "tools", ("quantise",), lambda: Once(self.tools),
                does="a calculator, and a search in many pages",
            ),
            Stage(
                "judge", ("tune", "serve", "tools"), lambda: Once(self.judge),
                does="quality and safety, with intervals",
                claims=(
                    Claim("following", "alignment"),
                    Claim("refused", "", at_least=90),
                    Claim("answered", "", at_least=90),
                    Claim("aa_win_rate", "", at_least=50, at_most=50),
                ),
            ),
        ]  # fmt: skip

    # --- what several stages use ---

    def opened(self, stage: str) -> tuple[GPT, Any]:
        """Model and tokenizer that a stage left."""
        from transformers import AutoTokenizer

        folder = self.home / stage
        model = packed.load(folder) if packed.is_packed(folder) else load(folder)
        return model.to(self.run.device), AutoTokenizer.from_pretrained(folder)

    def fitting(self, chosen: Sequence[chats.Chat], tokenizer: Any) -> list[mixture.Parts]:
        """Chats as tokens, without those that are longer than the context."""
        parts = mixture.tokenize([chat.messages for chat in chosen], tokenizer)
        return [chat for chat in parts if mixture.length_of(chat) <= self.context]

    @cached_property
    def sources(self) -> dict[str, list[list[chats.Chat]]]:
        """The chats of each split, by kind, and the pages of the tools' questions."""
        m = self.settings.mixture
        found = {}
        for split in ("train", "valid", "test"):
            rows = list(getattr(self.rows, split))[: None if split == "train" else m.tests]
            count = round(m.chats * m.tool / (m.command + m.tool + m.safety))
            tools, _ = chats.tool_chats(split, count if split == "train" else m.tests, self.run.seed)
            kept = chats.safety_chats(split, both=split == "train")  # type: ignore[arg-type]
            found[split] = [chats.command_chats(rows), tools, kept]
        return found

    def lessons(self, tokenizer: Any) -> tuple[list[mixture.Parts], list[mixture.Parts]]:
        """The mixture of the training, and the validation chats."""
        m = self.settings.mixture
        shares = (m.command, m.tool, m.safety)
        train = chats.mixed(self.sources["train"], shares, m.chats)
        valid = [chat for part in self.sources["valid"] for chat in part]
        fits = self.fitting(train, tokenizer)
        if not fits:
            raise UsageError(f"no chat fits into context={self.context}; try context=160")
        return fits, self.fitting(valid, tokenizer)

    # --- the stages ---

    def pretrain(self, folder: Path) -> dict[str, float]:
        from alignment import load_base

        texts = (f"{row.instruction} {row.input} {row.output}" for row in self.rows.train)
        theirs, tokenizer = load_base(self.settings.base, self.run, texts)
        try:
            model = from_huggingface(theirs)
        except ValueError as error:
            raise UsageError(f"base={self.settings.base}: {error}; type base=gpt2") from error
        export(model, tokenizer, folder)
        valid = self.lessons(tokenizer)[1]
        longer = learn.extended(model, self.context).to(self.run.device)
        return {"val_loss": learn.held_out_loss(longer, valid, self.place)}

    def tune(self) -> Session:
        model, tokenizer = self.opened("pretrain")
        train, valid = self.lessons(tokenizer)
        longer = learn.extended(model, self.context)
        return learn.Tune(longer, tokenizer, train, valid, self.settings.tune, self.place)

    def align(self) -> Session:
        model, tokenizer = self.opened("tune")
        train, valid = self.lessons(tokenizer)
        kept = safety.requests("train")

        def said(answers: Sequence[str]) -> list[mixture.Parts]:
            return mixture.tokenize(
                [
                    (template.user(row.text), template.assistant(answer))
                    for row, answer in zip(kept, answers, strict=True)
                ],
                tokenizer,
            )

        pairs = learn.pair_rows(
            said([row.good for row in kept]), said([row.bad for row in kept]), self.run.device
        )
        good = [c for c, chat in zip(train, range(len(train)), strict=True) if chat % 4 == 0]
        return learn.Align(model, tokenizer, good, valid, pairs, self.settings.align, self.place)

    def quantise(self, folder: Path) -> dict[str, float]:
        model, tokenizer = self.opened("align")
        scheme = SCHEMES[self.settings.serve.scheme]
        limits = QuantizeSettings()
        packed.save(
            folder, model, quantize_model(model, scheme, limits), scheme, limits.threshold, tokenizer
        )
        valid = self.lessons(tokenizer)[1]
        before = learn.held_out_loss(model, valid, self.place)
        after = learn.held_out_loss(packed.load(folder).to(self.run.device), valid, self.place)
        size = packed.size_on_disk(folder) / packed.size_on_disk(self.home / "align")
        return {
            "val_loss": after,
            "perplexity_increase": 100 * math.expm1(after - before),
            "size": 100 * size,
        }

    def serve(self, folder: Path) -> dict[str, float]:
        s = self.settings.serve
        _, tokenizer = self.opened("quantise")
        tests = [chat for part in self.sources["test"] for chat in part]
        found = {"drift": exam.drift(tokenizer, tests)}
        if s.requests:
            with serving.Server(self.home / "quantise", s.port) as server:
                numbers = serving.load(server.url, s.requests, s.rate, folder / "load.json")
            found["tokens_per_second"] = numbers["tokens_per_second"]
            found["first_token_ms"] = numbers["first_token_p50_ms"]
        return found

    def tools(self, folder: Path) -> dict[str, float]:
        m = self.settings.mixture
        asked, pages = chats.tool_chats("test", m.tests, self.run.seed)
        box = exam.toolbox(pages, [passage.text for passage in self.corpus.passages])
        with serving.Server(self.home / "quantise", self.settings.serve.port) as server:
            match, traces = exam.with_tools(serving.Served(server.url, ANSWER_TOKENS), asked, box)
        exam.write_traces(folder / "traces.txt", [*traces[:2], *traces[-2:]])
        return {"tool_match": match}

    def judge(self, folder: Path) -> dict[str, float]:
        commands, kept = self.sources["test"][0], safety.requests("test")
        asked = [
            *exam.first_messages(commands), *([template.user(row.text)] for row in kept)
        ]  # fmt: skip
        references = [*(chat.answer for chat in commands), *(row.good for row in kept)]
        said = {}
        for stage in ("tune", "quantise"):
            with serving.Server(self.home / stage, self.settings.serve.port) as server:
                texts = serving.Served(server.url, ANSWER_TOKENS).answer(asked)
            said[stage] = [judge.Answer(text, stage) for text in texts]
        ours = [answer.text for answer in said["quantise"]]
        answers, before = ours[len(commands) :], [a.text for a in said["tune"]][len(commands) :]
        shares = exam.refusals(answers, kept)
        wins = judge.win_rate(judge.compare(references, said["quantise"], said["tune"]))
        again = [answer._replace(source="quantise again") for answer in said["quantise"]]
        itself = judge.win_rate(judge.compare(references, said["quantise"], again))
        exam.write_samples(
            folder / "samples.txt",
            [(chat[0]["content"], text) for chat, text in zip(asked, ours, strict=True)][:6]
            + [(row.text, text) for row, text in zip(kept, answers, strict=True)][:: len(kept) // 8],
            most=16,
        )  # fmt: skip
        intervals = {name: list(share) for name, share in (*shares.items(), ("win_rate", wins))}
        (folder / "intervals.json").write_text(json.dumps(intervals), encoding="utf-8")
        return {
            "following": exam.right(ours[: len(commands)], commands),
            **{name: 100 * share.value for name, share in shares.items()},
            "tuned_refused": 100 * exam.refusals(before, kept)["refused"].value,
            "win_rate": 100 * wins.value,
            "aa_win_rate": 100 * itself.value,
        }
