"""The local language model over a tiny random Llama: greedy, strict, and without foreign code."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file

from dac_diffusion.captioning.chat_model import LocalChatModel, load_chat_model
from dac_diffusion.chat_endpoint import EndpointError
from dac_diffusion.errors import CheckpointError
from tests.captioning.tiny_chat_model import save_chat_model

SYSTEM, USER = "birds sing", "a dog barks while rain"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_chat_model(tmp_path / "llama")
    return tmp_path / "llama"


def greedy_by_hand(folder: Path, length: int) -> list[str]:
    """The likeliest words one after another, each from a pass over the whole text so far."""
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = f"<begin> <system> {SYSTEM} <user> {USER} <answer>"
    ids = [tokenizer.convert_tokens_to_ids(word) for word in text.split()]
    words = []
    for _ in range(length):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        words.append(tokenizer.convert_ids_to_tokens(ids[-1]))
    return words


def ask(model: LocalChatModel) -> str:
    return model.complete(SYSTEM, USER, Event())


def rewrite(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_answers_are_greedy_and_at_most_64_tokens_long(folder: Path) -> None:
    expected = greedy_by_hand(folder, 64)
    assert "<end>" not in expected
    assert len(set(expected)) > 3
    said = " ".join(word for word in expected if not word.startswith("<"))
    model = load_chat_model(folder)
    assert ask(model) == f"{said}..."
    assert ask(model) == f"{said}..."  # an earlier question leaves nothing behind


def test_settings_of_the_checkpoint_do_not_make_it_sample(folder: Path) -> None:
    last = greedy_by_hand(folder, 64)
    plain = ask(load_chat_model(folder))
    third = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"][last[2]]
    rewrite(
        folder / "generation_config.json",
        do_sample=True,
        temperature=5.0,
        top_p=0.5,
        repetition_penalty=9.0,
        eos_token_id=[2, third],
    )
    answer = ask(load_chat_model(folder))
    end = last.index(last[2]) + 1  # the answer ends with its first occurrence, and is not cut off
    assert answer == " ".join(word for word in last[:end] if not word.startswith("<"))
    assert plain.startswith(answer)


def test_another_file_is_another_model(folder: Path) -> None:
    first = load_chat_model(folder).fingerprint
    assert load_chat_model(folder).fingerprint == first
    save_chat_model(folder, seed=1)
    assert load_chat_model(folder).fingerprint != first


def test_trouble_of_the_device_is_an_error_of_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    model = load_chat_model(folder)
    monkeypatch.setattr(model.model, "generate", fail)
    with pytest.raises(EndpointError) as caught:
        ask(model)
    assert str(caught.value) == (
        f"{folder}: the model failed (CUDA out of memory. Tried to allocate 2 GiB)"
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "the tokenizer has no chat template, so this is no instruct model"),
        ("{{ raise_exception('no system') }}", "the chat template takes no system message (no sys"),
        ("{% for %}", "the chat template takes no system message"),
    ],
)
def test_a_model_that_takes_no_system_message_is_refused(
    tmp_path: Path, template: str | None, problem: str
) -> None:
    save_chat_model(tmp_path / "llama", template)
    with pytest.raises(CheckpointError) as caught:
        load_chat_model(tmp_path / "llama")
    assert str(caught.value).startswith(f"{tmp_path / 'llama'}: {problem}")
    assert "give another" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", None, "config.json: is missing"),
        ("config.json", b"{", "config.json: damaged, not valid JSON"),
        ("tokenizer.json", None, "tokenizer.json: is missing"),
        ("model.safetensors", None, "model.safetensors: is missing"),
        ("model.safetensors", b"nonsense", "model.safetensors: damaged or cut off"),
        ("config.json", b'{"model_type": "bird"}', "cannot be loaded as AutoModelForCausalLM"),
    ],
)
def test_damaged_folders(folder: Path, file: str, content: bytes | None, problem: str) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_chat_model(folder)
    assert problem in str(caught.value)
    assert str(folder) in str(caught.value)


def test_weights_must_be_those_of_the_settings(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "model.extra": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"config\.json describes, model\.extra;"):
        load_chat_model(folder)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"weights lack model\.layers\.1\.mlp"):
        load_chat_model(folder)


def test_code_in_the_folder_is_never_run(folder: Path) -> None:
    touched = folder / "touched"
    code = f"open({str(touched)!r}, 'w')\n"
    (folder / "modeling_bird.py").write_text(code)
    names = {"AutoConfig": "modeling_bird.Config", "AutoModelForCausalLM": "modeling_bird.Model"}
    rewrite(folder / "config.json", model_type="bird", auto_map=names)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_chat_model(folder)
    assert not touched.exists()


def test_pickled_weights_are_no_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is missing"):
        load_chat_model(folder)


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(CheckpointError, match="no-such-model: there is no such checkpoint folder"):
        load_chat_model("no-such-model")
