"""ClapScorer against transformers' ClapModel, as a component of captioners, saved and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, ClapModel, ClapProcessor

from dac_diffusion import load_captioner
from dac_diffusion.captioning.ranking import Candidates, audio_text_cosines, embed_texts
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.ranking.clap_similarity import ClapScorer
from dac_diffusion.retrieval.datastore import space_fingerprint
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.text.tokenizer import train_tokenizer
from tests.helpers import RATE, noise, tiny_autoregressive, tiny_captioner
from tests.metrics.fabricated_models import save_clap, save_like_laion

CAPTIONS = ["a dog bark", "rain fall on a roof then two dogs bark and the rain stop", "rain", ""]
OTHERS = train_tokenizer(CAPTIONS, 100)  # a captioner's tokenizer, which must not matter
RATE_OF_CLAP = 8000


@pytest.fixture(scope="module")
def laion_file(laion_text: nn.ModuleDict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("laion") / "clap.pt"
    weights = {"audio_branch.conv.weight": torch.zeros(2), **laion_text.state_dict()}
    save_like_laion(path, weights)
    return path


@pytest.fixture(params=["folder", "file"])
def scorer(
    request: pytest.FixtureRequest, clap_folder: Path, laion_file: Path, roberta_tokenizer: Path
) -> ClapScorer:
    if request.param == "folder":
        return ClapScorer.from_published(clap_folder)
    return ClapScorer.from_published(laion_file, roberta_tokenizer)


def embed(scorer: ClapScorer, *texts: str) -> Tensor:
    return scorer.embed_captions(texts, OTHERS)


@torch.inference_mode()
def reference(folder: Path, text: str, sound: Tensor) -> float:
    """The cosine that transformers' model gives for one text and one sound."""
    model, processor = ClapModel.from_pretrained(folder), ClapProcessor.from_pretrained(folder)
    pieces = processor.tokenizer([text], return_tensors="pt")
    found = processor.feature_extractor(
        sound.numpy(), sampling_rate=RATE_OF_CLAP, return_tensors="pt"
    )
    output = model(
        input_ids=pieces["input_ids"],
        attention_mask=pieces["attention_mask"],
        input_features=found["input_features"],
        is_longer=torch.tensor([[False]]),
    )
    return float(output.logits_per_text / model.logit_scale_t.exp())


@torch.inference_mode()
def test_scores_are_the_cosines_of_clap_model(clap_folder: Path) -> None:
    encoder = HtsatEncoder.from_published(clap_folder)
    scorer = ClapScorer.from_published(clap_folder)
    texts = CAPTIONS[:3]
    sounds = [torch.from_numpy(noise(s, i, RATE_OF_CLAP)) for i, s in enumerate((1.0, 0.6))]
    vectors = embed_texts(scorer, OTHERS, [texts, texts[::-1]])  # (2, 3, E)
    assert vectors.shape == (2, 3, 8)
    for sound, own, ordered in zip(sounds, vectors, (texts, texts[::-1]), strict=True):
        pooled = encoder(sound[None], torch.tensor([len(sound)])).pooled[0]
        # Neither that the vectors of windows are averaged nor that a joint space is scaled matters.
        for scale in (1.0, 3.0):
            found = audio_text_cosines(scorer, Candidates(ordered, own, pooled), scale * pooled)
            expected = torch.tensor([reference(clap_folder, text, sound) for text in ordered])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-2


@torch.inference_mode()
def test_vectors_of_a_laion_file_are_those_of_its_roberta(
    laion_text: nn.ModuleDict, laion_file: Path, roberta_tokenizer: Path
) -> None:
    scorer = ClapScorer.from_published(laion_file, roberta_tokenizer)
    texts = [*CAPTIONS, "rain " * 200]
    pieces = AutoTokenizer.from_pretrained(roberta_tokenizer)(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    pooled = laion_text["text_branch"](**pieces).pooler_output
    expected = nn.functional.normalize(laion_text["text_projection"](pooled), dim=-1)
    torch.testing.assert_close(embed(scorer, *texts), expected, rtol=0, atol=1e-5)


def test_a_caption_has_one_vector_alone_and_among_any_others(scorer: ClapScorer) -> None:
    texts = [*CAPTIONS, CAPTIONS[1], "roof " * 100]
    together, turned = embed(scorer, *texts), embed(scorer, *texts[::-1])
    assert torch.equal(turned.flip(0), together)
    for text, vector in zip(texts, together, strict=True):
        assert torch.equal(embed(scorer, text)[0], vector)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(texts)))
    assert torch.cdist(together[:4], together[:4]).fill_diagonal_(1).min() > 1e-3
    assert scorer.embed_captions([], OTHERS).shape == (0, 8)


def test_saved_and_read_it_gives_the_same_vectors(scorer: ClapScorer, tmp_path: Path) -> None:
    expected = embed(scorer, *CAPTIONS)  # a tokenizer remembers that it was told to cut
    scorer.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = load_saved_model(ClapScorer, tmp_path)
    assert not again.training
    assert torch.equal(embed(again, *CAPTIONS), expected)
    assert space_fingerprint(again) == space_fingerprint(scorer)
    half = load_saved_model(ClapScorer, tmp_path, dtype=torch.bfloat16)
    assert (half.dtype, half.device.type) == (torch.bfloat16, "cpu")
    vectors = embed(half, *CAPTIONS)
    assert vectors.dtype == half.embed_audio(vectors.bfloat16()).dtype == torch.float32
    assert (vectors * expected).sum(dim=-1).min() > 0.95


def test_nothing_in_its_folder_is_run(scorer: ClapScorer, tmp_path: Path) -> None:
    scorer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": [None, "own.Own"]}
    settings["tokenizer_class"] = "Own"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    again = load_saved_model(ClapScorer, tmp_path)
    assert torch.equal(embed(again, *CAPTIONS), embed(scorer, *CAPTIONS))
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("make", [tiny_captioner, tiny_autoregressive])
def test_a_captioner_carries_it(make: Callable[[], Any], tmp_path: Path) -> None:
    save_clap(tmp_path / "clap", projection_dim=32)
    captioner = make()
    captioner.scorer = ClapScorer.from_published(tmp_path / "clap")
    shutil.rmtree(tmp_path / "clap")
    sounds = [(noise(seconds, seed), RATE) for seed, seconds in enumerate((1.0, 2.3, 0.5))]
    together = captioner(sounds, num_captions=3)
    captioner.save_pretrained(tmp_path / "saved")
    again = load_captioner(tmp_path / "saved", "float32")
    assert type(again.scorer) is ClapScorer
    for sound, result in zip(sounds, together, strict=True):
        assert len(result.captions) == 3
        for other in (captioner, again):
            assert other(*sound, num_captions=3).captions == result.captions
    waveform = torch.from_numpy(sounds[0][0])
    padded = torch.zeros(1, captioner.encoder.canvas_samples(len(waveform)))
    padded[0, : len(waveform)] = waveform
    with torch.no_grad():
        pooled = captioner.encoder(padded, torch.tensor([len(waveform)])).pooled[0]
    for caption in together[0].captions:
        vector = embed(captioner.scorer, caption.text)[0]
        cosine = float(vector @ pooled / pooled.norm())
        assert caption.parts.cosine == pytest.approx(cosine, abs=1e-5)


def test_without_a_tokenizer_it_says_where_one_comes_from(tmp_path: Path) -> None:
    bare = ClapScorer({"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2})
    for use in (lambda: embed(bare, "rain"), lambda: bare.save_pretrained(tmp_path / "bare")):
        with pytest.raises(ConfigError, match="no tokenizer; make it by from_published"):
            use()
    assert not (tmp_path / "bare").exists()
    with pytest.raises(ConfigError, match="text_config: hidden unknown; use the names of ClapTex"):
        ClapScorer({"hidden": 16})


def test_a_folder_that_is_not_whole_is_named(scorer: ClapScorer, tmp_path: Path) -> None:
    scorer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_saved_model(ClapScorer, tmp_path)
        assert "\n" not in str(caught.value)

    vocabulary = content["model"]["vocab"]
    more = {**vocabulary, **{f"word{i}": len(vocabulary) + i for i in range(3)}}
    file.write_text(json.dumps({**content, "model": {**content["model"], "vocab": more}}))
    refused(rf"tokenizer\.json: has {len(more)} tokens, the text model {len(vocabulary)}; they")
    file.write_text(json.dumps({**content, "model": {"type": "Nothing"}}))
    refused(r"cannot be loaded as ClapScorer \(")
    file.write_text("{")
    refused(r"tokenizer\.json: damaged, not valid JSON")
    file.unlink()
    refused(r"tokenizer\.json: is missing, so this is no complete checkpoint")


def test_what_is_no_clap_is_refused(
    clap_folder: Path, roberta_tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="nowhere: there is no such folder"):
        ClapScorer.from_published(tmp_path / "nowhere")
    # It has the form of a Hub id, but means a file.
    with pytest.raises(CheckpointError, match=r"weights/none\.pt: there is no such file"):
        ClapScorer.from_published("weights/none.pt", roberta_tokenizer)
    with pytest.raises(CheckpointError, match=r"config\.json: is not a file of weights"):
        ClapScorer.from_published(clap_folder / "config.json", roberta_tokenizer)
