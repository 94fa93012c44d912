"""Byte-pair encoding: a vocabulary between characters and words (Sennrich et al. 2016, section 3).

Begin with characters; find the two symbols that are adjacent most often; merge them into one
symbol; repeat. Frequent words become one token, rare words a few, and no word is ever unknown. Both
languages share one vocabulary (Vaswani et al. 2017, section 5.1), so text that is spelled the same
in both (names, numbers, `Hand`) gets the same tokens.

The paper marks the end of a word; here a space becomes the visible mark `▁` in front of a word.
Joining the tokens and turning marks into spaces restores the sentence, with punctuation in its
place. Words are never merged with punctuation, nor digits with each other: each digit is a token.

    Ein Hut.   ->   ▁Ein ▁H ut .          26 Jahre   ->   ▁2 6 ▁Jahre
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from labkit import exercise

Pair = tuple[int, int]

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SPACE = "▁"
WORDS = rf"{SPACE}?[^\W\d]+|{SPACE}?\d|{SPACE}?[^\w{SPACE}]+|{SPACE}"
"""Letters, one digit, or punctuation, each with the space before it."""


def words(sentence: str) -> list[str]:
    """The pieces within which symbols are merged; joined they are the sentence, `▁` for spaces."""
    return re.findall(WORDS, SPACE + sentence.replace(" ", SPACE))


@exercise(minutes=10)
def count_pairs(corpus: Sequence[Sequence[int]], weights: Sequence[int]) -> Counter[Pair]:
    """How often each pair of symbols is adjacent.

    Args:
        corpus: the different words, each as its symbols.
        weights: how often each of them occurs.
    Returns:
        (left, right) -> occurrences. In `a a a` the pair (a, a) occurs twice.
    Raises:
        ValueError when there are not as many weights as words.
    """
    pairs: Counter[Pair] = Counter()
    for symbols, weight in zip(corpus, weights, strict=True):
        for pair in pairwise(symbols):
            pairs[pair] += weight
    return pairs


@exercise(minutes=15)
def merge_pair(symbols: Sequence[int], pair: Pair, new: int) -> list[int]:
    """The word with every occurrence of `pair` replaced by the symbol `new`, from left to right.

    Occurrences do not overlap: merging (a, a) in `a a a` gives `new a`. What has been merged is not
    merged again in the same call.
    """
    merged: list[int] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged


def learn(counts: Mapping[str, int], size: int) -> "BPE":
    """The merges of a corpus by algorithm 1 of Sennrich et al.; only changed pairs are recounted.

    Of equally frequent pairs the one with the smaller ids is taken, as in the `tokenizers` library,
    so both learn the same merges. Learning ends when no pair occurs twice, or at `size` tokens.

    Args:
        counts: how often each word (see `words`) occurs.
        size: tokens of the vocabulary at most, including special ones and characters.
    """
    tokens = [*SPECIAL, *sorted(set("".join(counts)))]
    ids = {token: i for i, token in enumerate(tokens)}
    corpus = [[ids[character] for character in word] for word in counts]
    weights = list(counts.values())
    pairs = count_pairs(corpus, weights)
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, symbols in enumerate(corpus):
        for pair in pairwise(symbols):
            where[pair].add(i)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    merges: list[Pair] = []
    while len(tokens) < size and queue:
        count, pair = heapq.heappop(queue)
        if pairs[pair] != -count:
            continue  # outdated; the entry with the right count is in the queue too
        if -count < 2:
            break
        merges.append(pair)
        token = tokens[pair[0]] + tokens[pair[1]]
        if token not in ids:  # two ways of merging can lead to one token
            ids[token] = len(tokens)
            tokens.append(token)
        changes: Counter[Pair] = Counter()
        for i in where.pop(pair):
            old, corpus[i] = corpus[i], merge_pair(corpus[i], pair, ids[token])
            changes.subtract(count_pairs([old], [weights[i]]))
            changes.update(count_pairs([corpus[i]], [weights[i]]))
            for neighbours in pairwise(corpus[i]):
                where[neighbours].add(i)
        for changed, change in changes.items():
            if change:
                pairs[changed] += change
                heapq.heappush(queue, (-pairs[changed], changed))
    return BPE(tokens, merges)


def learn_with_library(counts: Mapping[str, int], size: int) -> "BPE":
    """The same tokens and merges by Hugging Face's `tokenizers`, faster."""
    import json

    from tokenizers import Tokenizer, models, trainers

    library = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
    )
    repeated = ([word] * count for word, count in counts.items())
    library.train_from_iterator((word for group in repeated for word in group), trainer)
    model = json.loads(library.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return BPE(tokens, [(model["vocab"][a], model["vocab"][b]) for a, b in model["merges"]])


class BPE:
    """A learned vocabulary: sentences to ids and back."""

    def __init__(self, tokens: Sequence[str], merges: Sequence[Pair]) -> None:
        """`tokens` by id, special ones first; `merges` in the order in which they were learned."""
        self.tokens, self.merges = list(tokens), list(merges)
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, sentence: str) -> list[int]:
        """Ids of a sentence, without beginning or end; a character never seen becomes UNK."""
        ids: list[int] = []
        for word in words(sentence):
            if word not in self._known:
                self._known[word] = self._merge([self.ids.get(c, UNK) for c in word])
            ids += self._known[word]
        return ids

    def _merge(self, symbols: list[int]) -> list[int]:
        """Apply the merges that occur, in the order in which they were learned."""
        while True:
            pairs = [p for p in pairwise(symbols) if p in self.ranks]
            if not pairs:
                return symbols
            first = min(pairs, key=self.ranks.__getitem__)
            token = self.tokens[first[0]] + self.tokens[first[1]]
            symbols = merge_pair(symbols, first, self.ids[token])

    def decode(self, ids: Iterable[int]) -> str:
        """The sentence of these ids up to the first EOS, without padding and BOS."""
        text = ""
        for i in ids:
            if i == EOS:
                break
            text += "" if i in (PAD, BOS) else self.tokens[i]
        return text.replace(SPACE, " ").strip(" ")


def count_words(sentences: Iterable[str]) -> Counter[str]:
    """How often each word occurs, in the order of first occurrence."""
    return Counter(word for sentence in sentences for word in words(sentence))
