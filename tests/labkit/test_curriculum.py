"""The curriculum against the syllabus, against the data, and against mistakes in its own file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from labkit import course, data
from labkit.course import Band, Broken, reader
from labkit.data import ImageData, TextData
from labkit.errors import UsageError
from labkit.paths import CONFIGS

ROOT = Path(__file__).resolve().parents[2]

# Month, then the packages and focus areas of its four weeks, as the syllabus has them.
SYLLABUS = [
    ("Foundations", [
        ("math_ml", "Math for ML"), ("neural_networks", "Neural Networks Basics"),
        ("pytorch_mastery", "PyTorch Mastery"),
        ("representation_learning", "Representation Learning")]),
    ("Transformers and language models", [
        ("attention", "Attention Mechanism"), ("transformers_lab", "Transformer Architecture"),
        ("pretraining", "Pretraining and Scaling Laws"),
        ("alignment", "Posttraining and Alignment")]),
    ("Generative models", [
        ("generative_models", "GANs and VAEs"), ("diffusion", "Diffusion Models"),
        ("video_generation", "Video Generation"), ("evaluation", "Evaluation")]),
    ("RL and world models", [
        ("reinforcement_learning", "RL Basics"), ("world_models", "World Models"),
        ("ebm_jepa", "EBMs and JEPA"), ("rlhf", "RLHF and DPO")]),
    ("Multimodal and systems", [
        ("multimodal", "Multimodal Models"), ("agents", "Agents and Tools"),
        ("retrieval", "Retrieval and Memory"), ("systems", "Systems and Efficiency")]),
    ("Safety, robustness, capstone", [
        ("ai_safety", "AI Safety and Alignment"),
        ("robustness", "Robustness and Interpretability"),
        ("cross_frontiers", "Cross-Frontiers"), ("capstone", "Capstone")]),
]  # fmt: skip
ELECTIVES = ["autograd", "conformal", "causality", "game_theory", "sensorimotor", "theory"]
AUTHORS = {
    2: ["LeCun"], 3: ["Karpathy"], 4: ["Chen"], 5: ["Vaswani"], 6: ["Vaswani"],
    7: ["Kaplan", "Devlin"], 8: ["Ouyang", "Rafailov"], 9: ["Goodfellow", "Kingma"],
    10: ["Ho et al. 2020", "Rombach"], 11: ["Ho et al. 2022"], 12: ["Heusel"],
    13: ["Sutton and Barto"], 14: ["Ha and Schmidhuber", "Hafner"], 15: ["LeCun 2022", "Grathwohl"],
    16: ["Christiano", "Ouyang"], 17: ["Radford", "Alayrac"], 18: ["Yao", "Schick"],
    19: ["Lewis", "Izacard"], 20: ["Rajbhandari", "Kwon"], 21: ["Ouyang", "Bai"],
    22: ["Goodfellow et al. 2015", "Ribeiro"], 23: ["Mildenhall", "Jumper"],
}  # fmt: skip

UNITS = course.load().units
BUILT = [unit for unit in UNITS if unit.built]


def test_weeks_are_those_of_the_syllabus() -> None:
    expected = [
        (number, title, place, package, focus)
        for number, (title, place, package, focus) in enumerate(
            (
                (title, place, *week)
                for title, weeks in SYLLABUS
                for place, week in enumerate(weeks, 1)
            ),
            start=1,
        )
    ]
    weeks = course.load().weeks
    assert [(w.number, w.month_title, w.week, w.package, w.focus) for w in weeks] == expected
    assert [w.month for w in weeks] == sorted(list(range(1, 7)) * 4)
    assert [unit.package for unit in course.load().electives] == ELECTIVES


def test_papers_are_those_of_the_syllabus() -> None:
    for week in course.load().weeks[:-1]:
        wanted = AUTHORS.get(week.number, [])
        assert len(week.papers) == len(wanted), week.package
        assert all(paper.startswith(name) for paper, name in zip(week.papers, wanted, strict=True))


@pytest.mark.parametrize("unit", BUILT, ids=lambda unit: unit.package)
def test_a_built_week_makes_a_claim_and_can_be_run(unit: course.Unit) -> None:
    assert any(band.size == "tiny" for band in unit.bands), "no tiny band"
    assert unit.baseline, "no trivial baseline"
    config = ROOT / "configs" / unit.path
    for file in ("config.yaml", "size/smoke.yaml", "size/tiny.yaml"):
        assert (config / file).is_file(), file
    sheet = (unit.folder / "README.md").read_text(encoding="utf-8")
    assert "<!-- results:begin -->" in sheet
    assert "<!-- results:end -->" in sheet
    experiments = {
        (part, path.stem)
        for part in ("", *unit.parts)
        for path in (ROOT / "configs").glob(
            f"{unit.module}{f'.{part}' if part else ''}/experiment/broken_*.yaml"
        )
    }
    assert experiments == {(broken.part, broken.experiment) for broken in unit.broken}


@pytest.mark.parametrize("unit", [u for u in UNITS if not u.built], ids=lambda unit: unit.package)
def test_an_unbuilt_week_only_plans(unit: course.Unit) -> None:
    assert not unit.bands, "a band is a claim, and there is nothing here to hold it against"
    assert unit.planned.get("tiny")


def test_every_band_is_better_than_guessing() -> None:
    for unit in UNITS:
        for band in unit.bands:
            for guess in unit.baseline:
                if (guess.metric, guess.data) == (band.metric, band.data):
                    assert not band.verdict(guess.value), f"{unit.package}: guessing meets {band}"


@pytest.mark.parametrize(
    ("name", "share"), [("mnist", None), ("fashion_mnist", 0.1), ("cifar10", 0.1)]
)
def test_baselines_of_image_sets_are_the_most_frequent_class(
    name: str, share: float | None
) -> None:
    if data.available()[name] is None:
        pytest.skip(f"{name} is not on this machine")
    loaded = data.load(name)
    assert isinstance(loaded, ImageData)
    counted = 100 * np.bincount(loaded.test.y).max() / len(loaded.test.y)
    stated = {
        guess.value
        for unit in UNITS
        for guess in unit.baseline
        if guess.data == name and guess.metric in ("test_accuracy", "probe_accuracy")
    }
    assert len(stated) == 1
    assert stated.pop() == pytest.approx(counted)
    assert share is None or counted == pytest.approx(100 * share)


def test_baseline_of_shakespeare_is_the_entropy_of_its_alphabet() -> None:
    guess = course.week("pretraining").baseline[0]
    assert guess.value == pytest.approx(math.log(65), abs=1e-3)
    if data.available()["tinyshakespeare"] is not None:
        loaded = data.load("tinyshakespeare")
        assert isinstance(loaded, TextData)
        assert len(set(loaded.train + loaded.valid + loaded.test)) == 65


def test_baseline_of_cartpole_is_what_random_actions_get() -> None:
    import gymnasium

    envs = gymnasium.make_vec("CartPole-v1", num_envs=256)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    lengths: list[int] = []
    length, over = np.zeros(256, int), np.zeros(256, bool)
    while len(lengths) < 10_000:
        _, _, terminated, truncated, _ = envs.step(rng.integers(0, 2, 256))
        length = np.where(over, 0, length + 1)  # the step after the end only resets
        over = terminated | truncated
        lengths.extend(length[over].tolist())
    error = np.std(lengths) / math.sqrt(len(lengths))
    stated = {g.value for g in course.week(13).baseline if g.data == "CartPole-v1"}
    assert stated.pop() == pytest.approx(np.mean(lengths), abs=4 * error)


@pytest.mark.parametrize(
    "key", [10, "10", "week10", "diffusion", "diff", "Diffusion", "diffusion/"]
)
def test_a_week_is_found_by_number_name_or_beginning(key: str | int) -> None:
    assert course.week(key).package == "diffusion"


@pytest.mark.parametrize("key", ["electives/theory", "electives.theory", "theory", "theo"])
def test_an_elective_is_found_as_well(key: str) -> None:
    assert course.week(key).module == "electives.theory"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("difusion", "did you mean diffusion?"),
        ("reinforcment_learning", "did you mean reinforcement_learning?"),
        (25, "from 1 to 24"),
        (0, "from 1 to 24"),
        ("re", "representation_learning, reinforcement_learning, retrieval"),
        ("xyzzy", "lab list"),
        ("", "lab list"),
    ],
)
def test_an_unknown_week_is_refused_with_what_to_type(key: str | int, said: str) -> None:
    with pytest.raises(UsageError) as error:
        course.week(key)
    assert said in str(error.value)


def record(**changes: Any) -> dict[str, Any]:
    """A record to hold bands against."""
    return {
        "week": "diffusion", "size": "tiny", "data": {"name": "mnist"}, "experiment": None,
        "config": {"objective": "flow", "autoencoder": "none", "seed": 0},
        "metrics": {"fid_ratio": 7.5}, **changes,
    }  # fmt: skip


def test_a_band_applies_to_its_size_data_and_settings_only() -> None:
    band = Band(
        size="tiny", data="mnist", metric="fid_ratio", at_most=8, where={"objective": "flow"}
    )
    assert band.applies(record())
    assert not band.applies(record(size="smoke"))
    assert not band.applies(record(data={"name": "digits"}))
    assert not band.applies(record(data=None))
    assert not band.applies(record(config={"objective": "eps"}))
    assert not band.applies(record(config={}))


def test_verdicts_at_and_around_the_limit() -> None:
    low = Band(size="tiny", data="mnist", metric="m", at_least=98.3)
    high = Band(size="tiny", data="mnist", metric="m", at_most=8)
    assert [low.verdict(v) for v in (98.2999, 98.3, 98.4, math.nan)] == [False, True, True, False]
    assert [high.verdict(v) for v in (8.0001, 8.0, 0.0, math.nan)] == [False, True, True, False]


def test_bands_over_seeds() -> None:
    mean = Band(size="tiny", data="d", metric="m", at_least=10, seeds=3, over="mean")
    every = Band(size="tiny", data="d", metric="m", at_least=10, seeds=3, over="every")
    assert mean.met_by({0: 20.0, 1: 20.0}) is None
    assert mean.met_by({0: 9.0, 1: 11.0, 2: 11.0}) is True
    assert every.met_by({0: 9.0, 1: 11.0, 2: 11.0}) is False
    assert every.met_by({0: 10.0, 1: 11.0, 2: 11.0}) is True


def test_verdicts_of_a_record() -> None:
    (verdict,) = course.verdicts(record())
    assert verdict["met"] is True
    assert "≤ 8" in verdict["text"]
    assert course.verdicts(record(metrics={"fid_ratio": 8.5}))[0]["met"] is False
    assert course.verdicts(record(experiment="broken_ema")) == []
    assert course.verdicts(record(week="no_such_week")) == []


def changed(tmp_path: Path, change: Any) -> str:
    """The message with which a changed curriculum is refused."""
    raw = yaml.safe_load(reader.FILE.read_text(encoding="utf-8"))
    weeks = raw["months"][0]["weeks"]
    for week in weeks:  # their claims stand in files of their own
        claims = (CONFIGS / week["package"] / "claims.yaml").read_text(encoding="utf-8")
        week |= yaml.safe_load(claims)
    change(weeks)
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        course.load(file)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w[1].update(focuss="x"),
            "week 2 (neural_networks): unknown key 'focuss'; did you mean focus?",
        ),
        (lambda w: w[1].pop("task"), "week 2 (neural_networks): task: Field required"),
        (lambda w: w[1].update(number=3), "week 3 (neural_networks) is in the wrong place"),
        (lambda w: w[1].update(focus=7), "focus: Input should be a valid string, got 7"),
        (lambda w: w[1].update(prerequisites=["attention"]), "'attention' is not an earlier week"),
        (lambda w: w[1]["bands"][0].pop("at_least"), "give either at_least or at_most"),
        (lambda w: w[1]["bands"][0].update(at_most=1), "give either at_least or at_most"),
        (
            lambda w: w[1]["bands"][0].update(size="big"),
            "bands 1 size: Input should be 'smoke', 'tiny' or 'full', got 'big'",
        ),
        (lambda w: w[1]["bands"][0].update(metric="test_acuracy"), "did you mean test_accuracy?"),
        (
            lambda w: w[1].update(planned={"big": "x"}),
            "planned big [key]: Input should be 'smoke', 'tiny' or 'full'",
        ),
        (lambda w: w[2].update(package="neural_networks"), "neural_networks is listed twice"),
        (
            lambda w: w[1]["metrics"][0].update(digits=-1),
            "metrics 1 digits: Input should be greater than or equal to 0",
        ),
        (
            lambda w: w[1]["metrics"][0].update(digits="two"),
            "digits: Input should be a valid integer, got 'two'",
        ),
        (
            lambda w: w[1]["metrics"][0].update(better=["higher"]),
            "better: Input should be 'higher' or 'lower', got ['higher']",
        ),
        (
            lambda w: w[1]["bands"][0].update(seeds=0),
            "seeds: Input should be greater than or equal to 1, got 0",
        ),
        (
            lambda w: w[1]["bands"][0].update(at_least=math.nan),
            "at_least: Input should be a finite number, got nan",
        ),
        (
            lambda w: w.insert(0, "a week"),
            "months 1 weeks 1: Input should be a valid mapping, got 'a week'",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(
    tmp_path: Path, change: Any, said: str
) -> None:
    assert said in changed(tmp_path, change)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "the file: Input should be a valid mapping"),
        (b"months: []", "electives: Field required"),
        (b"electives: []", "months: Field required"),
        (b"months: 3\nelectives: []", "months: Input should be a valid list, got 3"),
        (b"months:\n- title: a\nelectives: []", "months 1 weeks: Field required"),
        (b"months: [", "cannot be read"),
        (b"months: \xe9", "cannot be read"),
    ],
)
def test_a_file_that_is_no_curriculum_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "curriculum.yaml"
    file.write_bytes(text)
    with pytest.raises(UsageError) as error:
        course.load(file)
    assert said in str(error.value)


def test_a_broken_experiment_states_its_symptom_in_numbers() -> None:
    broken = Broken(
        experiment="broken_x", symptom="it learns nothing", metric="m", size="smoke", at_most=20
    )
    assert broken.verdict(11.0)
    assert not broken.verdict(97.0)


def test_a_part_of_a_week_is_judged_with_it() -> None:
    assert course.package_of("pretraining") == "pretraining"
    assert course.package_of("pretraining.scaling") == "pretraining"
    assert course.package_of("electives.autograd") == "autograd"


def test_claims_of_a_part_are_joined_to_those_of_its_unit(tmp_path: Path) -> None:
    def write(name: str, **claims: Any) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "claims.yaml").write_text(yaml.safe_dump(claims), encoding="utf-8")

    def metric(name: str) -> dict[str, str]:
        return {"name": name, "title": name, "unit": "", "better": "higher"}

    def broken(name: str) -> dict[str, Any]:
        return {
            "experiment": f"broken_{name}", "symptom": "none", "metric": name, "size": "smoke",
            "at_most": 1,
        }  # fmt: skip

    week = {
        "number": 1, "package": "w", "focus": "f", "task": "t", "prerequisites": [],
        "parts": ["p", "q"],
    }  # fmt: skip
    plan = {"months": [{"title": "m", "weeks": [week]}], "electives": []}
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    write("w", metrics=[metric("a")], broken=[broken("a")])
    write("w.p", metrics=[metric("b")], broken=[broken("b")])  # q has no claims of its own
    (unit,) = course.load(file, tmp_path).units
    assert [m.name for m in unit.metrics] == ["a", "b"]
    assert [(b.part, b.experiment) for b in unit.broken] == [("", "broken_a"), ("p", "broken_b")]
    write("w.q", metrics=[metric("a")])
    again = file.rename(tmp_path / "twice.yaml")  # the first one is cached
    with pytest.raises(UsageError, match="two metrics have the name a"):
        course.load(again, tmp_path)
    (tmp_path / "w.q" / "claims.yaml").write_text("planned: {tiny: more}", encoding="utf-8")
    again = again.rename(tmp_path / "again.yaml")
    with pytest.raises(UsageError, match="planned must be a list"):
        course.load(again, tmp_path)
