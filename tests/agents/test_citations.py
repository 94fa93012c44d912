"""Citations: what was not read, or does not say it, supports nothing."""

from __future__ import annotations

import pytest

from agents.citations import ENOUGH, check_report, content_words, sentences, supported

READ = {
    1: "Nikola Tesla was born in Smiljan in 1856. He studied in Graz.",
    2: 'Edison called it "the war of  currents" in New York.',
    10: "The river Sel is 120 km long.",
}


@pytest.mark.exercise("citations.supported")
@pytest.mark.parametrize(
    ("sentence", "holds"),
    [
        ("Nikola Tesla was born in 1856 [1].", True),
        ("Nikola Tesla was born in 1856.", False),
        ("Nikola Tesla was born in 1856 [3].", False),
        ("Nikola Tesla was born in 1856 [1][3].", False),
        ("Nikola Tesla was born in 1856 [2].", False),
        ("Nikola Tesla was born in 1856 [0].", False),
        ("The river Sel is 120 km long [10].", True),
        ("The river Sel is 120 km long [1].", False),
        ("Tesla studied in Graz, Edison lived in New York [1][2].", True),
        ("Tesla studied in Graz, Edison lived in New York [1].", False),
        ('Edison spoke of "the war of currents" in New York [2].', True),
        ('Edison spoke of "the war of the currents" in New York [2].', False),
        ('Edison spoke of "the War of currents" in New York [2].', False),
        ("Edison called it “war of currents” in New York [2].", True),
        ("Edison called it “wars of currents” in New York [2].", False),
        ('Nikola Tesla studied in Graz, "born in Smiljan" and "river Sel" [1][10].', True),
        ('Nikola Tesla studied in Graz, "born in Smiljan" and "river Tal" [1][10].', False),
        ('Tesla was born in Smiljan "in 1856. He\nstudied" [1].', True),
        ('Nikola Tesla born Graz "He studied in Graz. Edison called it" [1][2].', False),
        ("NIKOLA TESLA, BORN 1856 [1].", True),
        ("[1]", False),
        ("It was him [1].", False),
        ("", False),
        ("Tesla [x].", False),
    ],
)
def test_a_sentence_needs_a_passage_that_was_read_and_says_it(sentence: str, holds: bool) -> None:
    before = dict(READ)
    found = supported(sentence, READ)
    assert found is holds
    assert before == READ


@pytest.mark.exercise("citations.supported")
def test_the_share_of_words_is_counted_over_those_of_the_sentence() -> None:
    assert ENOUGH == 0.6
    read = {1: "red green blue black white", 2: "gold"}
    assert supported("red green blue pink grey [1].", read)
    assert not supported("red green pink grey [1].", read)
    assert supported("the red of the green is blue, pink and grey [1].", read)
    assert not supported("red green blue pink grey teal [1].", read)
    assert supported("red 2 3 green blue [1].", read)
    assert not supported("red 1 2 3 green [1][2].", read)
    assert supported("red [1].", read)
    assert not supported("red [1].", {})
    assert supported("red gold [1][2].", read)
    assert not supported("1 [1].", read), "a citation's own number is no content word"


def test_reports_are_split_and_checked_sentence_by_sentence() -> None:
    report = (
        "Nikola Tesla was born in 1856 [1]. He invented the Internet [1]. Graz is where he "
        "studied. [1] The river Sel is 120 km long.[10] Edison J. Smith never lived [7]."
    )
    parts = sentences(report)
    assert parts == [
        "Nikola Tesla was born in 1856 [1].",
        "He invented the Internet [1].",
        "Graz is where he studied [1].",
        "The river Sel is 120 km long [10].",
        "Edison J. Smith never lived [7].",
    ]
    checked = check_report(report, READ)
    assert checked.kept == [parts[0], parts[2], parts[3]]
    assert checked.removed == [parts[1], parts[4]]
    assert checked.support == pytest.approx(0.6)
    assert check_report("", READ).support == 0


def test_numbers_and_names_do_not_end_sentences() -> None:
    assert sentences("It is 5.64 m long, i.e. short. Then it ended!") == [
        "It is 5.64 m long, i.e. short.",
        "Then it ended!",
    ]
    assert content_words("The cats' 3 hats, and THE dog_2") == {"cats", "3", "hats", "dog", "2"}
