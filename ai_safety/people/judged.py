"""What was learned from comparisons, measured: held-out comparisons, and XSTest on both axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ai_safety import data
from ai_safety.evaluate import Share
from ai_safety.judge import RefusalClassifier, keyword_refusal
from labkit.data import Preference
from pretraining import GPT
from rlhf import respond, texts_of

ASKED = "\n\nHuman: {}\n\nAssistant:"
"""A single question in HH-RLHF's form."""


def ordered(margin: Tensor) -> Share:
    """How often the answer that people preferred is ahead, from margins (P,); ties count half."""
    ahead = (margin > 0).double() + (margin == 0).double() / 2
    return Share(ahead.sum().item(), len(margin))


def longer_accuracy(rows: Sequence[Preference]) -> float:
    """Share (%) of rows whose longer answer (in characters) was preferred: a rule to beat."""
    margin = [len(row.chosen) - len(row.rejected) for row in rows]
    return ordered(torch.tensor(margin)).percent


def words_accuracy(train: Sequence[Preference], test: Sequence[Preference]) -> float:
    """Share (%) of `test` ordered rightly by logistic regression on the words of both answers.

    The difference of two answers' words is what it sees; it knows neither their order nor the
    question. What a language model has beyond it, it has not from single words.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words: Any = TfidfVectorizer(min_df=2, sublinear_tf=True, token_pattern=r"[\w']+|[?!]")
    words.fit([text for row in train for text in (row.chosen, row.rejected)])

    def difference(rows: Sequence[Preference]) -> Any:
        first, second = ([getattr(r, side) for r in rows] for side in ("chosen", "rejected"))
        return words.transform(first) - words.transform(second)

    seen = difference(train)
    regression: Any = LogisticRegression(C=1.0, fit_intercept=False, max_iter=500)
    regression.fit(vstack([seen, -seen]), [1] * len(train) + [0] * len(train))
    return ordered(torch.tensor(regression.decision_function(difference(test)))).percent


def on_xstest(model: GPT, tokenizer: Any, answer: int) -> dict[str, Share]:
    """XSTest's prompts refused by the model, greedily answered; nothing without the set.

    Returns:
        unsafe and safe: by a classifier that learned from people's labels of Do-Not-Answer;
        keyword_unsafe and keyword_safe: by phrases. Without those labels only the latter.
    """
    prompts = data.xstest()
    if prompts is None:
        return {}
    texts = [ASKED.format(text.strip()) for text, _ in prompts]
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    room = model.shape.context - answer
    rows = respond(model, [each[-room:] for each in tokens], answer, tokenizer.eos_token_id,
                   temperature=0.0)  # fmt: skip
    answers = [text for text, _ in texts_of(rows, tokenizer, tokenizer.eos_token_id)]
    refusals = {"keyword_": [keyword_refusal(text) for text in answers]}
    labelled = data.labelled_answers()
    if labelled.source != "embedded":
        refusals[""] = RefusalClassifier().fit(labelled.texts, labelled.refuses)(answers)
    unsafe = [is_unsafe for _, is_unsafe in prompts]
    return {
        f"{judge}{kind}": Share(sum(r for r, u in zip(refused, unsafe, strict=True) if u == wanted),
                                unsafe.count(wanted))
        for judge, refused in refusals.items()
        for kind, wanted in (("unsafe", True), ("safe", False))
    }  # fmt: skip
