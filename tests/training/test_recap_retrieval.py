"""What RECAP is shown of other clips in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.autoregressive.retrieval_prompt import prompt_ids
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import Hearings, SceneFeatures, encode_pool
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import DataError
from dac_diffusion.retrieval.datastore import CaptionDatastore, space_fingerprint
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CachedCaptions,
    Clips,
    FrozenParts,
    SceneCaptions,
)
from dac_diffusion.training.recap import (
    RecapConfig,
    RetrievedCaptions,
    find_captions,
    open_datastore,
)

WORDS = train_tokenizer(["a dog barks while rain falls and wind blows"], 100)


def embedded(texts: Any) -> Tensor:
    """Dog, rain and wind as the three directions of a space."""
    words = ("dog", "rain", "wind")
    counts = torch.tensor([[float(word in text) + 0.01 for word in words] for text in texts])
    return F.normalize(counts, dim=-1)


CLIPS = {"x": ["a dog barks", "dog"], "y": ["rain falls", "dog and rain"], "z": ["wind blows"]}


def test_clips_get_the_nearest_captions_of_others() -> None:
    config = RecapConfig(retrieved=2)
    store = open_datastore(config, CLIPS, embedded, "words", WORDS, progress=False)
    assert len(store) == 5
    vectors = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0]])
    found = find_captions(config, store, list(CLIPS), vectors, progress=False)
    assert found == [
        ("dog and rain", "wind blows"),
        ("wind blows", "a dog barks"),
        ("a dog barks", "dog"),
    ]
    assert found[1][1] is found[2][0]


def test_a_prepared_datastore_is_opened_if_it_is_of_the_same_space(tmp_path: Path) -> None:
    store = open_datastore(RecapConfig(), CLIPS, embedded, "words", WORDS, progress=False)
    store.save(tmp_path / "store")
    config = RecapConfig(datastore=str(tmp_path / "store"))
    assert len(open_datastore(config, {}, embedded, "words", WORDS)) == 5
    with pytest.raises(DataError, match="another joint audio-text space"):
        open_datastore(config, {}, embedded, "other", WORDS)
    short = RecapConfig(longest_caption=1)
    assert len(open_datastore(short, CLIPS, embedded, "words", WORDS, progress=False)) == 1


def test_no_scene_is_shown_its_own_captions(
    parts: FrozenParts, pools: tuple[ScenePool, ScenePool]
) -> None:
    pool, scorer = pools[0], parts.scorer.eval()
    features: SceneFeatures = encode_pool(parts.encoder, pool, Hearings(), progress=False)
    names = [f"scene {i}" for i in range(len(pool))]

    def embed(texts: Any) -> Tensor:
        return scorer.embed_text(encode_captions(parts.tokenizer, texts, 24))

    config = RecapConfig()
    captions = dict(zip(names, pool.captions, strict=True))
    space = space_fingerprint(scorer)
    store = open_datastore(config, captions, embed, space, parts.tokenizer, progress=False)
    with torch.no_grad():
        vectors = scorer.embed_audio(features.pooled[0].float())
    found = find_captions(config, store, names, vectors, progress=False)
    assert [len(own) for own in found] == [3] * len(pool)
    everywhere = [text for own in pool.captions for text in own]
    for own, shown in zip(pool.captions, found, strict=True):
        assert not {text for text in own if everywhere.count(text) == 1} & set(shown)
    source = SceneCaptions(pool, features, parts.tokenizer, BatchShape(4, 2, 24), seed=0)
    batch = RetrievedCaptions(source, found).batch(3, 0)
    assert len(set(batch.clips)) > 1
    for place, clip in enumerate(batch.clips):
        assert torch.equal(batch.audio.features[place], features.features[0, clip].float())
        assert batch.prompts.left[place] == prompt_ids(parts.tokenizer, found[clip])


class Cache:
    """A feature cache of clips that are numbers."""

    def __init__(self, first: int, size: int) -> None:
        self.first, self.size = first, size

    def __len__(self) -> int:
        return self.size

    def name(self, i: int) -> str:
        return f"clip {self.first + i}"

    def captions(self, i: int) -> tuple[str, ...]:
        return ("a dog barks",)

    def batch(self, indices: Any) -> AudioFeatures:
        pooled = torch.tensor([[float(self.first + i), 1.0] for i in indices])
        return AudioFeatures(pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool), pooled)

    def pooled(self) -> torch.Tensor:
        return self.batch(range(self.size)).pooled


def test_vectors_of_caches_are_in_the_order_of_their_source() -> None:
    caches: Any = [Cache(0, 300), Cache(300, 2)]
    source = CachedCaptions(caches, WORDS, BatchShape(50, 1, 8), seed=0)
    clips = source.clips()
    assert clips.names == [f"clip {i}" for i in range(302)]
    assert torch.equal(clips.pooled, torch.tensor([[float(i), 1.0] for i in range(302)]))
    batch = source.batch(0, 0)
    assert batch.audio.features[:, 0, 0].tolist() == [float(clip) for clip in batch.clips]


def test_clips_of_one_name_in_two_data_sets_keep_their_captions() -> None:
    clips = Clips(["x", "y", "x"], [["a dog barks"], ["dog"], ["rain falls"]], torch.eye(3))
    captions = clips.captions_by_name()
    assert captions == {"x": ["a dog barks", "rain falls"], "y": ["dog"]}
    config = RecapConfig()
    store = open_datastore(config, captions, embedded, "words", WORDS, progress=False)
    assert len(store) == 3
    found = find_captions(config, store, clips.names, torch.ones(3, 3), progress=False)
    assert [set(own) for own in found] == [{"dog"}, {"a dog barks", "rain falls"}, {"dog"}]


def test_a_datastore_of_another_model_is_refused_at_the_search() -> None:
    store = CaptionDatastore.build(["rain"], ["x"], torch.eye(2)[:1], "words")
    with pytest.raises(DataError, match="holds vectors of 2 numbers, but this model's have 3"):
        find_captions(RecapConfig(), store, ["y"], torch.ones(1, 3), progress=False)
