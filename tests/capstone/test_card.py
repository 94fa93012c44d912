"""The claims table: what was not measured is not met."""

from __future__ import annotations

import math

import pytest

from capstone import card, page
from capstone.stages import Claim
from labkit import course


@pytest.mark.exercise("card.verdict")
@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (5.0, 5.0, None, "met"),
        (4.999, 5.0, None, "missed"),
        (5.001, 5.0, None, "met"),
        (5.0, None, 5.0, "met"),
        (5.001, None, 5.0, "missed"),
        (-7.0, None, 5.0, "met"),
        (5.0, 5.0, 5.0, "met"),
        (6.0, 5.0, 5.5, "missed"),
        (4.0, 5.0, 5.5, "missed"),
        (0.0, 0.0, None, "met"),
        (0.0, None, 0.0, "met"),
        (0.1, None, 0.0, "missed"),
        (-0.1, 0.0, None, "missed"),
        (None, 5.0, None, "not measured"),
        (math.nan, 5.0, None, "not measured"),
        (math.nan, None, 5.0, "not measured"),
        (math.inf, 5.0, None, "not measured"),
        (-math.inf, None, 5.0, "not measured"),
        (3.0, None, None, ""),
        (0.0, None, None, ""),
        (None, None, None, "not measured"),
        (math.nan, None, None, "not measured"),
    ],
)
def test_a_value_against_its_band(
    value: float | None, low: float | None, high: float | None, expected: str
) -> None:
    assert card.verdict(value, low, high) == expected


def test_the_table_has_a_row_for_what_was_claimed_and_not_measured() -> None:
    claims = {
        "serve": [Claim("drift", "", at_most=0), Claim("speed", "", at_least=3)],
        "judge": [Claim("aa", "", at_least=50, at_most=50)],
    }
    rows = card.rows(claims, {"serve": {"drift": 0.0, "tokens": 7.0}}, {})
    assert [(r.stage, r.metric, r.band, r.verdict) for r in rows] == [
        ("serve", "drift", "≤ 0", "met"),
        ("serve", "tokens", "", ""),
        ("serve", "speed", "≥ 3", "not measured"),
        ("judge", "aa", "50", "not measured"),
    ]


def test_a_claim_of_a_week_is_that_weeks_own_band() -> None:
    band = next(b for b in course.week("alignment").bands if b.metric == "following")
    assert card.limits(Claim("following", "alignment")) == (band.at_least, None)
    assert card.limits(Claim("nothing", "alignment")) == (None, None)
    assert card.limits(Claim("following", "alignment", at_least=1)) == (1, None)


def test_where_a_week_has_run_the_band_must_be_about_that_run() -> None:
    claim, week = Claim("test_word_perplexity", "pretraining"), course.week("pretraining")
    bands = [band for band in week.bands if band.metric == claim.metric]
    assert len({band.at_most for band in bands}) == len(bands) > 1
    for band in bands:
        record = {"size": "tiny", "data": {"name": band.data}, "config": dict(band.where)}
        assert card.limits(claim, record) == (None, band.at_most)
        assert card.limits(claim, record | {"size": "smoke"}) == (None, None)
        assert card.limits(claim, record | {"data": {"name": "other"}}) == (None, None)
    assert card.rows({"a": [claim]}, {"a": {claim.metric: 1.0}}, {"a": record})[0].verdict == "met"


def test_the_page_escapes_what_a_model_wrote() -> None:
    section = page.Section("Judge", samples={"samples": "<script>alert(1)</script>"})
    row = card.Row("serve", "drift", 0.0, "≤ 0", "met")
    text = page.page("T", "s", {"serve": "does"}, {"serve": 3.0}, [row], [section], {"a": "<b>"})
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;" in text
    assert "3.0 s" in text
    assert '<td class="met">met</td>' in text
