"""The built-in checkpoints and the example recordings, as a newcomer meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dac_diffusion import AutoregressiveCaptioner, load_captioner
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.metrics.event_naming import load_event_namer
from dac_diffusion.metrics.wellformedness import word_count
from dac_diffusion.text.tokenizer import normalise_caption

ROOT = Path(__file__).parents[1]
BUILTIN = ROOT / "dac_diffusion" / "builtin"
AUTOREGRESSIVE = ROOT / "dac_diffusion" / "builtin_autoregressive"
EXAMPLES = sorted((BUILTIN / "examples").glob("*.ogg"))


@pytest.fixture(scope="module")
def captioner() -> DiffusionCaptioner:
    return DiffusionCaptioner.from_pretrained("builtin")


def test_examples_get_five_different_captions_that_name_the_sounds(
    captioner: DiffusionCaptioner,
) -> None:
    namer = load_event_namer(ROOT / "benchmarks" / "event_synonyms.yaml")
    results = captioner(EXAMPLES, progress=False)
    assert isinstance(results, list)
    assert len(results) >= 5
    for path, clip in zip(EXAMPLES, results, strict=True):
        texts = [caption.text for caption in clip.captions]
        assert len({normalise_caption(text) for text in texts}) == 5
        assert all(word_count(text) >= 2 for text in texts)
        words = path.stem.split("_", 1)[1]
        present = [label for label in namer.labels if label in words]
        assert any(namer.names(text, label) for text in texts for label in present), path.name


def test_a_single_sound_is_named_first(captioner: DiffusionCaptioner) -> None:
    best = captioner(BUILTIN / "examples" / "2_crackling_fire.ogg").captions[0].text
    assert "fire" in best


def test_one_step_is_enough_for_a_caption(captioner: DiffusionCaptioner) -> None:
    clip = captioner(BUILTIN / "examples" / "1_engine.ogg", num_steps=1, num_captions=2)
    assert len(clip.captions) == 2


def test_the_same_alone_and_in_a_batch(captioner: DiffusionCaptioner) -> None:
    paths = EXAMPLES[:4]
    together = captioner(paths[::-1], num_steps=2, progress=False)
    for path, clip in zip(paths[::-1], together, strict=True):
        assert clip.captions == captioner(path, num_steps=2).captions


@pytest.mark.parametrize("folder", [BUILTIN, AUTOREGRESSIVE])
def test_it_is_small_licensed_and_holds_no_foreign_paths(folder: Path) -> None:
    weights = list(folder.glob("*/*.safetensors"))
    assert 0 < sum(path.stat().st_size for path in weights) < 30e6
    assert "NonCommercial" in (folder / "LICENSE").read_text()
    assert "CC BY-NC 3.0" in (folder / "README.md").read_text()
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.pt"))
    for path in [*folder.glob("*/config.json"), folder / "model_index.json"]:
        assert "_name_or_path" not in json.loads(path.read_text())
    for line in (folder / "config.yaml").read_text().splitlines():
        assert ": /" not in line, line


@pytest.mark.parametrize("decoding", ["greedy", "beam", "nucleus", "diverse_beam"])
def test_the_autoregressive_one_names_the_sounds_too(decoding: Any) -> None:
    captioner = load_captioner("builtin-autoregressive")
    assert isinstance(captioner, AutoregressiveCaptioner)
    results = captioner(EXAMPLES, num_captions=3, decoding=decoding, progress=False)
    namer = load_event_namer(ROOT / "benchmarks" / "event_synonyms.yaml")
    named = 0
    for path, clip in zip(EXAMPLES, results, strict=True):
        words = path.stem.split("_", 1)[1]
        present = [label for label in namer.labels if label in words]
        texts = [caption.text for caption in clip.captions]
        assert len(texts) == (1 if decoding == "greedy" else 3)
        named += any(namer.names(text, label) for text in texts for label in present)
    assert named == len(EXAMPLES)


def test_both_have_as_many_parameters() -> None:
    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    captioner = load_captioner("builtin-autoregressive")
    diffusion = load_captioner("builtin")
    ours = count(diffusion.denoiser, diffusion.latent_space)
    assert count(captioner.projection, captioner.network) == pytest.approx(ours, rel=0.05)
    # They hear with the same ears.
    theirs = captioner.encoder.state_dict()
    for name, weight in diffusion.encoder.state_dict().items():
        assert torch.equal(weight, theirs[name])
