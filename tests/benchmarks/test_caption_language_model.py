"""The language model that RECAP freezes in retrieval.py: what it reads, and what is made of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.autoregressive.bottleneck_gpt2 import load_gpt2
from dac_diffusion.text.tokenizer import normalise_caption

SCENES = [
    ("a dog barks", "a dog is barking", "the dog barks", "some dog barks", "one dog barking"),
    ("rain falls", "it rains", "the rain falls", "some rain falls", "rain falling"),
    ("a bell rings", "the bell rings", "some bell rings", "one bell rings", "a bell ringing"),
]


def reading(seed: int = 0) -> Any:
    from caption_language_model import CaptionReading, load_tokenizer

    args = argparse.Namespace(seed=seed, batch_size=40)
    return CaptionReading(load_tokenizer("builtin"), SCENES, args)


def documents(task: Any, step: int = 0) -> list[list[str]]:
    """The captions of each document of a batch, in order; the last is the one to be written."""
    tokenizer: PreTrainedTokenizerFast = task.tokenizer
    found = []
    batch = task.batch(step, 0, 1)
    for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        words = tokenizer.convert_ids_to_tokens(row[mask.bool()].tolist())
        assert words[-1] == "[EOS]"
        text = " ".join(words[:-1]).replace(" ##", "")
        shown, written = text.split("[BOS]")
        *captions, rest = shown.split("[EOS]")
        assert not rest.strip()
        found.append([caption.strip() for caption in [*captions, written]])
    return found


def test_documents_show_captions_of_the_scene_and_of_others() -> None:
    task = reading()
    assert len(task.scenes) == 2
    assert list(task.kept) == SCENES[2:]
    read = [text for scene in task.scenes for text in scene]
    own = other = 0
    lengths = set()
    for step in range(10):
        for *shown, written in documents(task, step):
            scene = next(s for s in task.scenes if written in s)
            lengths.add(len(shown))
            assert set(shown) <= set(read)
            own += sum(text in scene for text in shown)
            other += sum(text not in scene for text in shown)
            assert shown.count(written) <= sum(text in scene for text in shown)
    assert lengths == {0, 1, 2, 3, 4}
    # Half are its own by intention; with two scenes to draw from, so is half of the rest.
    assert 0.65 < own / (own + other) < 0.85


def test_documents_depend_on_seed_and_step_alone() -> None:
    assert documents(reading(), 3) == documents(reading(), 3)
    assert documents(reading(), 3) != documents(reading(), 4)
    assert documents(reading(), 3) != documents(reading(seed=1), 3)


def test_padding_and_labels() -> None:
    from caption_language_model import padded

    batch = padded([([5, 6], [7, 1]), ([], [8])], padding=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [8, 0, 0, 0]]
    assert batch["labels"].tolist() == [[5, 6, 7, 1], [8, -100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    alone = padded([([5, 6], [7, 1])], padding=0, captions_only=True)
    assert alone["labels"].tolist() == [[-100, -100, 7, 1]]


def test_a_training_gives_a_folder_that_recap_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import caption_language_model
    from common import run_main

    folder, output = tmp_path / "gpt2", tmp_path / "result.json"
    options = ["--clips", "none", "--scenes", "24", "--steps", "12", "--batch-size", "8"]
    options += ["--folder", str(folder), "--output", str(output), "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["caption_language_model.py", *options])
    run_main(caption_language_model.main)
    table = json.loads(output.read_text())["table"]
    assert [row["shown"] for row in table] == ["nothing", "of other scenes", "of its own scene"]
    nothing_learnt = torch.tensor(float(len(reading().tokenizer))).log()
    assert all(0 < row["cross_entropy"] < nothing_learnt - 0.5 for row in table)
    assert f"recap.gpt2={folder / 'model'}" in capsys.readouterr().out

    model = load_gpt2(folder / "model")
    special = [model.tokenizer.bos_token, model.tokenizer.eos_token, model.tokenizer.pad_token]
    assert special == ["[BOS]", "[EOS]", "[PAD]"]
    assert model.tokenizer.get_vocab() == reading().tokenizer.get_vocab()
    assert model.network.config.eos_token_id == model.tokenizer.eos_token_id
    ids = torch.tensor([model.tokenizer(normalise_caption("A dog barks"))["input_ids"]])
    encoded = torch.zeros(1, 2, model.network.config.n_embd)
    logits = model.network(ids, encoder_hidden_states=encoded).logits  # (1, L, V)
    assert logits.shape == (1, ids.shape[1], len(model.tokenizer))
