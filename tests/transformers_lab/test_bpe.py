"""The merges against the `tokenizers` library, and against counting everything again each time."""

import itertools
import random
from collections import Counter

import pytest

from transformers_lab import BPE, bpe, count_words, learn, learn_with_library

TEXT = [
    "the newest tests of the lowest tests are the widest, said the tester.",
    "Der Tester testet den neuesten Test: 1987 Tests, 26 Fehler!",
    "  two  spaces, a_b, «quoted», naïve ½ and 3.14 — and an end",
    "aaaa aaa aa a baab abab bbbb",
]


def random_words(seed: int, count: int = 60) -> Counter[str]:
    """Words over a small alphabet: many ties, and many overlapping pairs."""
    rng = random.Random(seed)
    words: Counter[str] = Counter()
    for _ in range(count):
        words["".join(rng.choices("abc", k=rng.randint(1, 9)))] += rng.randint(1, 5)
    return words


def learn_slowly(counts: Counter[str], size: int) -> list[tuple[str, str]]:
    """Algorithm 1 of Sennrich et al. with nothing kept from one merge to the next."""
    corpus = {tuple(word): n for word, n in counts.items()}
    order = {c: i for i, c in enumerate([*bpe.SPECIAL, *sorted({c for w in counts for c in w})])}
    merges = []
    while len(order) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, n in corpus.items():
            for i in range(len(word) - 1):
                pairs[word[i], word[i + 1]] += n
        best = min(pairs, key=lambda p: (-pairs[p], order[p[0]], order[p[1]]), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        order.setdefault("".join(best), len(order))
        merged: Counter[tuple[str, ...]] = Counter()
        for word, n in corpus.items():
            new: list[str] = []
            rest = list(word)
            while rest:
                new.append(rest.pop(0))
                if rest and (new[-1], rest[0]) == best:
                    new[-1] += rest.pop(0)
            merged[tuple(new)] += n
        corpus = dict(merged)
    return merges


def as_text(learned: BPE) -> list[tuple[str, str]]:
    return [(learned.tokens[a], learned.tokens[b]) for a, b in learned.merges]


@pytest.mark.exercise("bpe.count_pairs")
def test_pairs_are_counted_in_order_and_with_weight() -> None:
    found = bpe.count_pairs([[1, 2, 3], [2, 1, 2], [7]], [1, 10, 100])
    assert dict(found) == {(1, 2): 11, (2, 3): 1, (2, 1): 10}


@pytest.mark.exercise("bpe.count_pairs")
def test_overlapping_pairs_are_all_counted() -> None:
    assert dict(bpe.count_pairs([[5, 5, 5, 5]], [2])) == {(5, 5): 6}


@pytest.mark.exercise("bpe.count_pairs")
@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_are_those_found_at_every_place(seed: int) -> None:
    """One occurrence after the other, by its place; words and weights stay as they are."""
    rng = random.Random(seed)
    corpus = [[rng.randrange(4) for _ in range(rng.randint(0, 7))] for _ in range(20)]
    weights = [rng.randint(1, 9) for _ in corpus]
    given = [list(word) for word in corpus], list(weights)
    found = bpe.count_pairs(corpus, weights)
    places = [
        (word[i], word[i + 1])
        for word, weight in zip(corpus, weights, strict=True)
        for i in range(len(word) - 1)
        for _ in range(weight)
    ]
    assert found == Counter(places)
    assert (corpus, weights) == given
    assert found[9, 9] == 0, "a Counter knows of no pair that it has not"
    assert bpe.count_pairs(tuple(map(tuple, corpus)), tuple(weights)) == found


@pytest.mark.exercise("bpe.count_pairs")
def test_a_corpus_without_pairs_has_none() -> None:
    assert bpe.count_pairs([], []) == Counter()
    assert bpe.count_pairs([[3], []], [5, 6]) == Counter()


@pytest.mark.exercise("bpe.count_pairs")
@pytest.mark.parametrize("weights", [[1], [1, 2, 3], []])
def test_a_weight_for_each_word(weights: list[int]) -> None:
    with pytest.raises(ValueError):
        bpe.count_pairs([[1, 2], [3, 4]], weights)


@pytest.mark.exercise("bpe.merge_pair")
@pytest.mark.parametrize(
    ("symbols", "merged"),
    [
        ([1, 2], [9]),
        ([1, 2, 1, 2, 3], [9, 9, 3]),
        ([2, 1, 2, 1], [2, 9, 1]),  # (2, 1) is another pair
        ([1, 1, 2], [1, 9]),
        ([3, 1], [3, 1]),
        ([1], [1]),
        ([], []),
    ],
)
def test_merge_takes_every_occurrence(symbols: list[int], merged: list[int]) -> None:
    given = list(symbols)
    assert bpe.merge_pair(given, (1, 2), 9) == merged
    assert given == symbols, "the word itself stays"


@pytest.mark.exercise("bpe.merge_pair")
def test_merge_goes_from_left_to_right() -> None:
    assert bpe.merge_pair([4, 4, 4], (4, 4), 9) == [9, 4]
    assert bpe.merge_pair([4, 4, 4, 4, 4], (4, 4), 9) == [9, 9, 4]


@pytest.mark.exercise("bpe.merge_pair")
def test_merge_is_that_of_text() -> None:
    """str.replace goes from left to right, too, and does not look again at what it has put in."""
    for length in range(7):
        for symbols in itertools.product(range(3), repeat=length):
            text = "".join(map(str, symbols))
            for pair, new in (((0, 1), 2), ((0, 1), 0), ((1, 1), 1), ((2, 2), 0), ((2, 0), 7)):
                expected = text.replace("".join(map(str, pair)), str(new))
                found = bpe.merge_pair(symbols, pair, new)
                assert isinstance(found, list)
                assert "".join(map(str, found)) == expected, (symbols, pair, new)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_merges_are_those_of_counting_anew(seed: int) -> None:
    counts = random_words(seed)
    assert as_text(learn(counts, 40)) == learn_slowly(counts, 40)


@pytest.mark.parametrize("size", [50, 90, 100_000])
def test_tokens_and_merges_are_the_librarys(size: int) -> None:
    pytest.importorskip("tokenizers")
    for counts in (count_words(TEXT), random_words(3), random_words(4, 400)):
        ours, theirs = learn(counts, size), learn_with_library(counts, size)
        assert ours.tokens == theirs.tokens
        assert ours.merges == theirs.merges


def test_encoding_is_the_librarys() -> None:
    """Also of words never seen, of unknown characters, and of pairs that overlap."""
    tokenizers = pytest.importorskip("tokenizers")
    learned = learn(count_words(TEXT), 110)
    names = learned.tokens
    library = tokenizers.models.BPE(
        {token: i for i, token in enumerate(names)},
        [(names[a], names[b]) for a, b in learned.merges],
        unk_token="<unk>",
    )
    for sentence in (*TEXT, "testament aaaaa xyz ☃ the lest", "abaabaaab"):
        theirs = [t.id for word in bpe.words(sentence) for t in library.tokenize(word)]
        assert learned.encode(sentence) == theirs


@pytest.mark.parametrize("sentence", TEXT)
def test_decoding_gives_the_sentence_back(sentence: str) -> None:
    learned = learn(count_words(TEXT), 100)
    ids = learned.encode(sentence)
    assert len(ids) < len(sentence)
    assert learned.decode([bpe.BOS, *ids, bpe.EOS, bpe.PAD, 7, 8]) == sentence.strip(" ")


def test_digits_stay_apart_and_words_keep_their_space() -> None:
    assert bpe.words("Am 26. Mai, a-b") == ["▁Am", "▁2", "6", ".", "▁Mai", ",", "▁a", "-", "b"]
