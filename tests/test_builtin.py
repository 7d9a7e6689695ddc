"""The built-in checkpoint and its example recordings, as a newcomer meets them."""

import json
from pathlib import Path

import pytest

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.metrics.event_naming import load_event_namer
from dac_diffusion.metrics.wellformedness import word_count
from dac_diffusion.text.tokenizer import normalise_caption

ROOT = Path(__file__).parents[1]
BUILTIN = ROOT / "dac_diffusion" / "builtin"
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


def test_it_is_small_licensed_and_holds_no_foreign_paths() -> None:
    weights = list(BUILTIN.glob("*/*.safetensors"))
    assert sum(path.stat().st_size for path in weights) < 30e6
    assert "NonCommercial" in (BUILTIN / "LICENSE").read_text()
    assert "CC BY-NC 3.0" in (BUILTIN / "README.md").read_text()
    assert not list(BUILTIN.rglob("*.bin")) + list(BUILTIN.rglob("*.pt"))
    for path in [*BUILTIN.glob("*/config.json"), BUILTIN / "model_index.json"]:
        assert "_name_or_path" not in json.loads(path.read_text())
