"""What the small agent learns from, and how it writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from agents import evaluate, questions, tokens
from agents.atlas import make_atlas, pages_of, split_of
from agents.calculator import calculate
from agents.policy import (
    Lessons,
    LocalPolicy,
    continue_texts,
    lesson_loss,
    make_model,
    open_policy,
    own_tokens,
    save,
)
from agents.react import parse_action, solve
from agents.scripted import ScriptedPolicy
from agents.toolset import toolbox
from labkit import UsageError

T, V, P = 1, 2, 0


@pytest.fixture(scope="module")
def tokenizer():
    calls = [f"{tool}[" for tool in ("calculate", "search", "finish")]
    return tokens.build(tokens.vocabulary(questions.TEXTS, calls))


@pytest.mark.exercise("policy.own_tokens")
def test_only_what_the_model_writes_is_learned() -> None:
    rows = torch.tensor([
        [9, 9, T, 7, 7, V, 8, 8, T, 7, V, 8, T, 7, 5, P, P],
        [9, T, T, 7, V, V, 8, T, P, P, P, P, P, P, P, P, P],
        [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
        [T, 7, V, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, T],
    ])  # fmt: skip
    kept = rows.clone()
    wanted = [
        [0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0] * 17,
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]
    mask = own_tokens(rows, T, V, P)
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == wanted
    assert own_tokens(rows[:1], T, V, P).int().tolist() == wanted[:1]
    assert own_tokens(rows[1:2, 1:], T, V, P).int().tolist() == [wanted[1][1:]]
    assert (
        own_tokens(rows, 7, 8, P)[0].int().tolist()
        == [0] * 3 + [1] * 4 + [1] + [0] + [1] * 3 + [0] + [1] * 2 + [0] * 2
    )
    assert own_tokens(torch.where(rows == P, 4, rows), T, V, 4).int().tolist() == wanted
    assert torch.equal(rows, kept)
    assert own_tokens(rows.to("meta"), T, V, P).shape == rows.shape


@pytest.mark.exercise("policy.own_tokens")
def test_the_mask_of_a_real_trace_reads_as_the_model_wrote_it(tokenizer) -> None:
    rng = np.random.default_rng(0)
    tasks = [task for task, _ in zip(questions.teacher(rng, 3), range(40), strict=False)]
    lessons = Lessons([task.trace for task in tasks], tokenizer, 400)
    pieces = tokens.pieces_of(tokenizer)
    for task, row, own in zip(tasks, lessons.rows, lessons.own, strict=True):
        written = "".join(
            pieces[t] for t, mine in zip(row.tolist(), own.tolist(), strict=True) if mine
        )
        wanted = "".join(
            f"{tokens.THOUGHT}{s.thought}{tokens.ACTION}{s.tool}[{s.argument}]"
            + (tokens.OBSERVATION if s.observation is not None else "")
            for s in task.steps
        )
        assert written == wanted
        assert row[own][-1] == tokenizer.eos_token_id


def test_text_survives_its_tokens_and_cannot_spell_the_end(tokenizer) -> None:
    text = "Question: What is 47 times 85?\nThought: <|endoftext|> \nKadelo's (page) 5.64%~"
    (row,) = tokens.encode(tokenizer, [text])
    pieces = tokens.pieces_of(tokenizer)
    assert tokens.decode(pieces, row, tokenizer.eos_token_id) == text
    assert tokenizer.eos_token_id not in row
    assert pieces[tokenizer.eos_token_id] == pieces[tokenizer.pad_token_id] == ""
    (name,) = tokens.encode(tokenizer, ["Kadelo"])
    assert [pieces[t] for t in name] == ["Ka", "de", "lo"]
    (strange,) = tokens.encode(tokenizer, ["é"])
    assert strange == [tokenizer.unk_token_id]
    assert len(set(pieces)) == len(pieces) - 2


def test_a_teacher_is_right_and_its_calls_are_well_formed() -> None:
    from agents.grammar import react_step
    from agents.regular import matches

    rng = np.random.default_rng(1)
    tasks = [task for task, _ in zip(questions.teacher(rng, 3), range(200), strict=False)]
    assert {task.kind for task in tasks} == {"arithmetic", "lookup", "chain"}
    grammar = react_step(["calculate", "search"])
    for task in tasks:
        for step in task.steps:
            written = str(step).split(tokens.OBSERVATION)[0]
            assert matches(grammar, written), written
            assert parse_action(written) == (step.tool, step.argument)
            if step.tool == "calculate":
                assert step.observation == calculate(step.argument)
        assert task.steps[-1].argument == task.answer
        assert task.length == len(task.steps) - 1


def test_a_chain_adds_what_it_has_found_so_far() -> None:
    from agents.atlas import Town

    towns = [Town("Bati", "Kade", 12, " It is old."), Town("Rosu", "Kade", 30), Town("Me", "Ka", 5)]
    task = questions.chain(towns)
    assert task.question == "What is the population of Bati, Rosu and Me in all?"
    assert [(s.tool, s.argument) for s in task.steps] == [
        ("search", "Bati"), ("search", "Rosu"), ("calculate", "12+30"), ("search", "Me"),
        ("calculate", "42+5"), ("finish", "47"),
    ]  # fmt: skip
    assert task.steps[0].observation == "Bati is a town in Kade. Its population is 12. It is old."
    assert (task.answer, task.length) == ("47", 5)
    assert questions.chain(towns[:1]).question == "What is the population of Bati?"
    assert questions.chain(towns[:1]).answer == "12"


def test_pages_of_the_training_say_more_and_those_of_the_exam_do_not() -> None:
    rng = np.random.default_rng(2)
    said = [questions.noise(rng) for _ in range(400)]
    assert 0.4 < sum(not s for s in said) / 400 < 0.6
    assert max(s.count(".") for s in said) == questions.MOST
    assert all(s.startswith(" ") and s.endswith(".") for s in said if s)
    assert not any("gnore" in s or "answer is" in s for s in said)
    pages = evaluate.exam("test", 5, (1,)).pages.values()
    assert all(page.endswith(".") and page.count(".") == 2 for page in pages)
    assert not {*questions.OTHER_WORDINGS} & {*questions.WORDINGS}


def test_tests_share_neither_names_nor_expressions_with_training() -> None:
    exam = evaluate.exam("test", 30, (1, 2))
    assert all(split_of(title) == "test" for title in exam.pages)
    assert all(questions.split_of(t.steps[0].argument) == "test" for t in exam.arithmetic)
    assert len({t.question for t in exam.arithmetic}) == 30
    valid = evaluate.exam("valid", 30, ())
    assert all(questions.split_of(t.steps[0].argument) == "valid" for t in valid.arithmetic)
    assert evaluate.exam("test", 30, (1, 2)) == exam
    assert {task.question for task in exam.chains[2]}
    names = [c.name for c in make_atlas(3, "train", 40)]
    assert len(set(names)) == 40
    assert all(split_of(name) == "train" for name in names)


def test_the_scripted_agent_solves_what_it_can_see() -> None:
    exam = evaluate.exam("test", 20, (1, 3, 6))
    box = toolbox(exam.pages)
    for length, tasks in exam.chains.items():
        score, traces = evaluate.answered(ScriptedPolicy(), box, tasks, limit=12)
        assert score == 100
        assert all(len(trace.turns) == length + 1 + (length > 1) for trace in traces)
    study = evaluate.memory_study(exam, limit=12, budget=420)
    assert study["whole"] == [100, 100, 100]
    assert study["window"][0] == 100
    assert study["window"][-1] == 0
    assert study["summary"] == [100, 100, 100]


def test_batches_are_a_function_of_the_step_and_waste_little(tokenizer) -> None:
    rng = np.random.default_rng(0)
    texts = [t.trace for t, _ in zip(questions.teacher(rng, 3), range(130), strict=False)]
    lessons = Lessons(texts, tokenizer, 400)
    seen = torch.zeros(130)
    for step in range(8):
        rows, own = lessons.batch(16, step, seed=5)
        again = lessons.batch(16, step, seed=5)
        assert torch.equal(rows, again[0])
        assert torch.equal(own, again[1])
        assert rows.shape == own.shape
        assert rows.shape[1] % 16 == 0
        assert (rows[:, :-15] != tokenizer.pad_token_id).any(dim=0).all(), "little is padding only"
        for row in rows:
            full = F.pad(row, (0, lessons.rows.shape[1] - len(row)), value=tokenizer.pad_token_id)
            seen[(lessons.rows == full).all(dim=1).nonzero()[0]] += 1
    assert (seen <= 1).all()
    assert seen.sum() == 128
    assert not torch.equal(lessons.batch(16, 0, 5)[0], lessons.batch(16, 8, 5)[0])
    with pytest.raises(UsageError, match="and the context 20; type context="):
        Lessons(texts, tokenizer, 20)


def test_the_loss_is_the_mean_over_own_tokens(tokenizer) -> None:
    torch.manual_seed(0)
    model = make_model(len(tokenizer), 64, 16, 1, 2)
    rows = torch.randint(0, len(tokenizer), (3, 12))
    own = torch.rand(3, 12) < 0.4
    own[:, 0] = True  # cannot be predicted: nothing stands before it
    logps = model(rows).log_softmax(dim=-1)
    terms = [-logps[b, t - 1, rows[b, t]] for b in range(3) for t in range(1, 12) if own[b, t]]
    assert lesson_loss(model, rows, own).item() == pytest.approx(
        torch.stack(terms).mean().item(), rel=1e-5
    )


def test_texts_of_unequal_length_are_continued_as_each_alone(tokenizer) -> None:
    torch.manual_seed(1)
    model = make_model(len(tokenizer), 40, 16, 2, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    texts = ["Question: What is 4?", "Question: A", "4", "Question: What is 5?", "x" * 36]
    together = continue_texts(model, tokenizer, texts, 8)
    assert together[:4] == [continue_texts(model, tokenizer, [text], 8)[0] for text in texts[:4]]
    assert together[4] == ""
    assert any(together)


def test_an_untrained_model_writes_calls_that_can_be_read(tokenizer) -> None:
    torch.manual_seed(2)
    model = make_model(len(tokenizer), 200, 16, 1, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    policy = LocalPolicy(model, tokenizer, ("calculate", "search"), 24)
    written = policy.write(["Question: a", "Question: What is 3 plus 4?", "4"])
    assert all(parse_action(one) is not None for one in written), written
    with pytest.raises(
        UsageError, match="step_tokens=2 is too short for any step; type step_tokens="
    ):
        LocalPolicy(model, tokenizer, ("search",), 2)
    traces = solve(policy, toolbox({"a": "b"}), ["one?", "two?"], limit=2)
    assert evaluate.valid_calls(traces) == 100


def test_a_policy_survives_the_disk(tokenizer, tmp_path) -> None:
    model = make_model(len(tokenizer), 64, 16, 1, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    save(tmp_path, model, tokenizer)
    opened = open_policy(tmp_path, ("search",), 24, True)
    here = LocalPolicy(model, tokenizer, ("search",), 24)
    assert opened.write(["Question: Kadelo?"]) == here.write(["Question: Kadelo?"])


def test_metrics_count_what_they_say() -> None:
    from agents.react import Trace, Turn

    good = Turn("Thought: a\nAction: search[x]", "search", "x", "page")
    bad = Turn("hm", None, None, "error", ok=False)
    own = Turn("Action: search[x]\nObservation: made up", "search", "x", "page")
    traces = [Trace("a", [good, bad, good]), Trace("b", [own])]
    assert evaluate.valid_calls(traces) == 75
    assert evaluate.invented(traces) == 50
    tasks = [questions.Task("chain", "a", "5", ()), questions.Task("chain", "b", "6", ())]
    traces[0].answer = "5"
    assert evaluate.right(traces, tasks) == 50
    assert pages_of(make_atlas(0, "train", 2)).keys()
