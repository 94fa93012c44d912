"""Captions as tokens, pools of pictures, features on disk, and what a run begins with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from labkit import UsageError
from labkit.data import CaptionedImages, DataError, ImageTextData
from multimodal import evaluate, features, pool, start, tokens
from multimodal.pipeline import Pipeline

CAPTIONS = ["a red circle", "a blue square left of a red circle", "Red!"]
SIZE = start.Size(16, 1, 2, 8, 16, 8, "conv", 9)


# --- tokens ---


def test_words_and_the_end() -> None:
    tokenizer = tokens.word_tokenizer(CAPTIONS)
    found = tokens.encode(tokenizer, ["A red square", "circle", "a zebra!"], 9)
    names = [tokenizer.convert_ids_to_tokens(row) for row in found.tolist()]
    assert names == [
        ["a", "red", "square", tokens.END],
        ["circle", tokens.END, tokens.PAD, tokens.PAD],
        ["a", tokens.UNKNOWN, "!", tokens.END],
    ]
    assert tokenizer.eos_token_id == len(tokenizer) - 1  # the highest number, as in CLIP
    assert tokens.unknown_words(tokenizer, "a Zebra on a red zebra") == ["zebra", "on"]
    assert "'squre'; did you mean square?" in tokens.said_of_unknown(tokenizer, ["squre"])


def test_captions_that_cannot_be_encoded() -> None:
    tokenizer = tokens.word_tokenizer(CAPTIONS)
    with pytest.raises(UsageError, match="a caption is empty"):
        tokens.encode(tokenizer, ["red", "  "], 9)
    with pytest.raises(UsageError, match="has 10 tokens and the model takes 8"):
        tokens.encode(tokenizer, [CAPTIONS[1] + " red"], 8)
    cut = tokens.encode(tokenizer, [CAPTIONS[1]], 4, cut=True)
    assert tokenizer.decode(cut[0]) == f"a blue square {tokens.END}"
    assert tokens.encode(tokenizer, [CAPTIONS[0]], 4).shape == (1, 4)


# --- pools ---


def test_scenes_of_a_gallery_are_all_different() -> None:
    pools = pool.scene_pools(50, 0.5, 16)
    assert len(pools.train) == 50
    for found, size in ((pools.valid, 48), (pools.test, 64)):
        assert found.gallery == size
        assert len(found) == size * pool.RENDERS
        for part in found.meaning.split(size):
            assert len(part.unique()) == size
    assert pools.test_pairs is not None
    assert len(pools.test_pairs.meaning.unique()) == pool.PAIRS
    assert evaluate.in_split(pools.valid, "test").sum() == 0
    assert evaluate.in_split(pools.test, "test").sum() == 16 * pool.RENDERS
    assert pools.digest() == pool.scene_pools(50, 0.5, 16).digest()
    assert pools.digest() != pool.scene_pools(50, 0.4, 16).digest()


def test_a_batch_has_each_picture_beside_its_opposite() -> None:
    train = pool.training_scenes(60, 0.5, 16, hard=True)
    assert train.opposite is not None
    assert train.scenes is not None
    assert len(train) == 60
    for drawn in (np.array([7, 2, 50, 11]), np.array([4, 9, 20]), np.array([5])):
        batch = pool.with_opposites(drawn, train)
        assert len(batch) == len(drawn)
        assert np.array_equal(batch[::2], drawn[: len(batch[::2])])
        assert np.array_equal(batch[1::2], train.opposite.numpy()[batch[::2][: len(batch) // 2]])
    meaning = train.meaning
    assert (meaning != meaning[train.opposite]).all()
    assert torch.equal(train.opposite[train.opposite], torch.arange(60))
    plain = pool.training_scenes(60, 0.5, 16, hard=False)
    index = np.array([3, 1])
    assert pool.with_opposites(index, plain) is index


def split_of(n: int, seed: int) -> CaptionedImages:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 3, 12, 12), dtype=np.uint8)
    return CaptionedImages(x, tuple((f"Picture {i % 7}", f"number {i}") for i in range(n)))


def test_a_set_is_held_out_once_and_for_all() -> None:
    found = ImageTextData("mine", "test", split_of(20, 0), split_of(6, 1))
    found.check()
    pools = pool.set_pools(found, 12, 0.25)
    assert (len(pools.train), len(pools.valid), len(pools.test)) == (15, 5, 6)
    texts = {*pools.train.captions, *pools.valid.captions}
    assert len(texts) == 20
    place = {captions: i for i, captions in enumerate(found.train.captions)}
    for part in (pools.train, pools.valid):  # each picture has kept its captions
        for picture, captions in zip(part.pictures, part.captions, strict=True):
            assert np.array_equal(picture.numpy(), found.train.x[place[captions]])
    same = [captions[0] for captions in pools.train.captions]
    for i, a in enumerate(same):
        for j, b in enumerate(same):
            assert (a == b) == bool(pools.train.meaning[i] == pools.train.meaning[j])
    with pytest.raises(UsageError, match="at least one on either side"):
        pool.set_pools(found, 12, 0.01)


def test_resized_as_pillow_does() -> None:
    smooth = np.linspace(0, 255, 48 * 48).reshape(48, 48).astype(np.uint8)
    picture = np.stack([smooth, smooth.T, 255 - smooth])
    found = pool.resized(torch.from_numpy(picture)[None], 20)[0].numpy().transpose(1, 2, 0)
    pillow = Image.fromarray(picture.transpose(1, 2, 0)).resize((20, 20), Image.Resampling.BICUBIC)
    assert np.abs(found.astype(int) - np.asarray(pillow)).max() <= 1
    same = torch.from_numpy(picture)[None]
    assert pool.resized(same, 48) is same


def test_a_caption_is_drawn_from_its_own_picture() -> None:
    captions = [("a",), ("b", "c", "d"), ("e", "f")]
    drawer = pool.Drawer(captions, seed=3)
    flat = [text for texts in captions for text in texts]
    index = np.array([1, 0, 2, 1])
    seen = set()
    for step in range(40):
        drawn = [flat[place] for place in drawer.draw(index, step)]
        assert all(text in captions[i] for text, i in zip(drawn, index, strict=True))
        seen.update(drawn)
    assert seen == set(flat)
    assert np.array_equal(drawer.draw(index, 7), pool.Drawer(captions, 3).draw(index, 7))


def write_folder(root: Path, **rows: list[dict[str, object]]) -> Path:
    """Pictures of 20 x 14 pixels with metadata.jsonl for each split."""
    for split, lines in rows.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        for place, row in enumerate(lines):
            Image.new("RGB", (20, 14), (10 * place, 99, 7)).save(
                root / split / str(row["file_name"])
            )
        text = "\n".join(json.dumps(row) for row in lines)
        (root / split / "metadata.jsonl").write_text(text)
    return root


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": f"picture {i}"} for i in range(3)]
    write_folder(tmp_path, train=rows, validation=rows[:1])
    found = pool.open_folder(str(tmp_path), 14)
    assert found.train.captions == (("picture 0",), ("picture 1",), ("picture 2",))
    assert found.train.x[2, :, 0, 0].tolist() == [20, 99, 7]
    for folder, said in ((None, "type folder="), (str(tmp_path / "no"), "is not a folder")):
        with pytest.raises(UsageError, match=said):
            pool.open_folder(folder, 14)
    with pytest.raises(DataError, match="no image-caption pairs"):
        pool.open_folder(str(tmp_path / "train"), 14)


# --- features on disk ---


def test_features_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    tower, inputs = nn.Linear(3, 2), torch.randn(5, 3)
    with torch.no_grad():
        expected = tower(inputs)
    assert torch.equal(features.frozen(tower, "image", inputs), expected)
    assert "once" in capsys.readouterr().err
    assert torch.equal(features.frozen(tower, "image", inputs), expected)
    assert "once" not in capsys.readouterr().err
    (file,) = features.folder().iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:-3])  # cut short: made again, with a warning
    assert torch.equal(features.frozen(tower, "image", inputs), expected)
    assert "made again" in capsys.readouterr().err
    assert len(file.read_bytes()) == len(good)
    features.write(file, torch.zeros(5, 2), {"weights": "another"})
    assert torch.equal(features.frozen(tower, "image", inputs), expected)
    assert "does not hold what its name says" in capsys.readouterr().err
    with torch.no_grad():
        tower.weight += 1
    assert not torch.equal(features.frozen(tower, "image", inputs), expected)
    assert features.frozen(tower, "image", inputs[:4]).shape == (4, 2)
    assert len(list(features.folder().iterdir())) == 3


# --- what a run begins with ---


def test_what_is_trained() -> None:
    torch.manual_seed(0)
    model, _ = start.new_model(SIZE, CAPTIONS, 10.0, -5.0)
    assert model.log_scale.exp().item() == pytest.approx(10)
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = model.encode_images(pictures)
    start.prepare(model, "lora", 2, 4.0, seed=0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {"image_projection.weight", "text_projection.weight", "log_scale", "bias"} < trained
    assert {name.rpartition(".")[2] for name in trained if "blocks" in name} == {"a", "b"}
    assert sum("blocks" in name for name in trained) == 2 * 2 * 6  # towers, A and B, matrices
    torch.testing.assert_close(model.encode_images(pictures), before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".b"):
                parameter += 0.1
    after = model.encode_images(pictures)
    merged = start.merged(model)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(merged.encode_images(pictures), after, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_images(pictures), after)  # the model itself stays
    start.prepare(merged, "projections", 1, 1.0, 0)
    assert {name for name, p in merged.named_parameters() if p.requires_grad} == {
        "image_projection.weight", "text_projection.weight", "log_scale", "bias",
    }  # fmt: skip


def test_only_matrices_decay() -> None:
    model, _ = start.new_model(SIZE, CAPTIONS, 10.0, -5.0)
    (adamw,) = start.optimizers_of(model, 1e-3, 0.0, 0.3)
    decayed, rest = adamw.param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert any(p is model.log_scale for p in rest["params"])
    assert any(p is model.image.positions for p in rest["params"])
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))
    both = start.optimizers_of(model, 1e-3, 2e-3, 0.3, "fp32")
    inside = both[1].param_groups[0]["params"]
    assert len(inside) == 2 * 6  # towers, matrices of a layer
    every = [p for each in both for group in each.param_groups for p in group["params"]]
    assert len(set(map(id, every))) == len(every) == len(list(model.parameters()))
    start.set_rates(both, 0.5)
    assert [group["lr"] for each in both for group in each.param_groups] == [5e-4, 5e-4, 1e-3]


def test_a_saved_pipeline_is_the_same(tmp_path: Path) -> None:
    model, tokenizer = start.new_model(SIZE, CAPTIONS, 10.0, -5.0)
    pipeline = Pipeline(model, tokenizer)
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    pipeline.save(tmp_path / "model")
    again = Pipeline.load(tmp_path / "model")
    torch.testing.assert_close(again.embed_pictures(pictures), pipeline.embed_pictures(pictures))
    text = again.embed_texts([*CAPTIONS, CAPTIONS[0]])
    torch.testing.assert_close(text, pipeline.embed_texts([*CAPTIONS, CAPTIONS[0]]))
    assert torch.equal(text[0], text[3])
    assert not torch.equal(text[0], text[1])
    torch.testing.assert_close(text.norm(dim=1), torch.ones(4))
    (tmp_path / "model" / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="holds no model of this week"):
        Pipeline.load(tmp_path / "model")
