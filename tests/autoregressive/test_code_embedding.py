"""The encoder input of EnCLAP: its layout, masks, crops, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.autoregressive.code_embedding import CodeEmbedding, crop_codes, hide
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from dac_diffusion.saved_models import load_saved_model
from tests.autoregressive.tiny_bart import WIDTH, random_bart

BOOKS, ENTRIES, VECTOR = 3, 10, 5


def embedding(max_codes: int = 20, sequence_vector: bool = True) -> CodeEmbedding:
    torch.manual_seed(0)
    model = CodeEmbedding(BOOKS, ENTRIES, VECTOR, WIDTH, max_codes, sequence_vector)
    if model.vector_in is not None:
        torch.nn.init.normal_(model.vector_in.bias)  # zero at first, which would hide mistakes
    return model.eval()


def codes(lengths: list[int], width: int | None = None, seed: int = 0) -> AudioFeatures:
    """Random codes of clips; what is padding holds codes as well, which must not matter."""
    generator = torch.Generator().manual_seed(seed)
    places = width or max(lengths)
    shape = (len(lengths), places, BOOKS)
    return AudioFeatures(
        torch.randint(0, ENTRIES, shape, generator=generator),
        torch.arange(places) < torch.tensor(lengths)[:, None],
        torch.randn(len(lengths), VECTOR, generator=generator),
    )


def by_hand(model: CodeEmbedding, audio: AudioFeatures, clip: int) -> torch.Tensor:
    """[vector][<s>][codes][</s>] of one clip, one row after another."""
    rows = []
    if model.vector_in is not None:
        rows.append(model.vector_in.weight @ audio.pooled[clip] + model.vector_in.bias)
    rows.append(model.frame.weight[0])
    for place in range(int(audio.mask[clip].sum())):
        numbers = audio.features[clip, place].tolist()
        picked = [model.tables[i].weight[number] for i, number in enumerate(numbers)]
        rows.append(torch.stack(picked).sum(dim=0))
    rows.append(model.frame.weight[1])
    return torch.stack(rows)


@pytest.mark.parametrize("sequence_vector", [True, False])
def test_every_clip_has_vector_start_codes_and_end(sequence_vector: bool) -> None:
    model = embedding(sequence_vector=sequence_vector)
    lengths = [4, 7, 0, 1]
    audio = codes(lengths, width=9)
    found, mask = model(audio)
    frame = 2 + sequence_vector
    assert found.shape == (4, 9 + frame, WIDTH)
    assert mask.dtype == torch.long
    assert model.codes_start == frame - 1
    for clip, length in enumerate(lengths):
        assert mask[clip].tolist() == [1] * (length + frame) + [0] * (9 - length)
        torch.testing.assert_close(
            found[clip, : length + frame], by_hand(model, audio, clip), atol=1e-6, rtol=0
        )
        assert (found[clip, length + frame :] == 0).all()


def test_without_the_vector_everything_else_is_the_same() -> None:
    model, audio = embedding(), codes([3, 5])
    bare = CodeEmbedding(BOOKS, ENTRIES, VECTOR, WIDTH, 20, sequence_vector=False)
    names = set(bare.state_dict())
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if k in names})
    (whole, whole_mask), (part, part_mask) = model(audio), bare(audio)
    assert torch.equal(part, whole[:, 1:])
    assert torch.equal(part_mask, whole_mask[:, 1:])


@pytest.mark.parametrize(("entries", "rows"), [(1024, 1088), (10, 64), (63, 64), (64, 128)])
def test_tables_have_the_published_number_of_rows(entries: int, rows: int) -> None:
    model = CodeEmbedding(2, entries, VECTOR, 8)
    assert [table.weight.shape for table in model.tables] == [(rows, 8)] * 2
    assert all((table.weight[entries] == 0).all() for table in model.tables)
    assert not any((table.weight[:entries] == 0).any() for table in model.tables)


def test_a_hidden_code_adds_nothing_and_stays_so() -> None:
    model, audio = embedding(), codes([6])
    hidden = torch.zeros(1, 6, BOOKS, dtype=torch.bool)
    hidden[0, 2, 1] = hidden[0, 4, :] = True
    masked = AudioFeatures(hide(audio.features, hidden, model.mask_id), audio.mask, audio.pooled)
    before, after = model(audio)[0][0, 2:], model(masked)[0][0, 2:]
    lost = model.tables[1].weight[audio.features[0, 2, 1]]
    torch.testing.assert_close(after[2], before[2] - lost)
    assert (after[4] == 0).all()
    assert torch.equal(after[[0, 1, 3, 5, 6]], before[[0, 1, 3, 5, 6]])
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        model(masked)[0].square().sum().backward()
        optimizer.step()
    assert all((table.weight[model.mask_id] == 0).all() for table in model.tables)


def test_start_and_end_begin_as_barts_and_then_go_their_own_way() -> None:
    network, model = random_bart(30), embedding()
    table = network.model.shared.weight
    model.take_frame(network)
    assert torch.equal(model.frame.weight, table[[0, 2]])
    with torch.no_grad():
        table.zero_()
    assert (model.frame.weight != 0).all()
    network.config.bos_token_id = 3
    torch.nn.init.normal_(table)
    network.model.shared.embed_scale = 4.0  # as a BART with scale_embedding has it
    model.take_frame(network)
    torch.testing.assert_close(model.frame.weight, 4.0 * table[[3, 2]])
    narrow = CodeEmbedding(BOOKS, ENTRIES, VECTOR, 8)
    with pytest.raises(ConfigError, match="width=8: the network's is 16; build"):
        narrow.take_frame(network)


def test_the_first_codes_of_a_long_clip_are_read() -> None:
    model = embedding(max_codes=4)
    audio = codes([9, 3, 4, 5])
    first = AudioFeatures(audio.features[:, :4], audio.mask[:, :4], audio.pooled)
    for found, expected in zip(model(audio), model(first), strict=True):
        assert torch.equal(found, expected)
    assert model(audio)[1].sum(dim=1).tolist() == [7, 6, 7, 7]


def test_a_random_run_begins_anywhere_in_its_own_clip() -> None:
    longest, lengths = 4, [9, 3, 4, 6]
    audio = codes(lengths, width=12)
    own = torch.arange(12).expand(4, 12)[..., None]  # each code is its own place
    audio = AudioFeatures(own, audio.mask, audio.pooled)
    generator = torch.Generator().manual_seed(0)
    starts: list[list[int]] = [[], [], [], []]
    for _ in range(400):
        cropped = crop_codes(audio, longest, generator)
        assert cropped.features.shape == (4, longest, 1)
        assert cropped.mask.sum(dim=1).tolist() == [4, 3, 4, 4]
        assert torch.equal(cropped.pooled, audio.pooled)
        for clip, row in enumerate(cropped.features[..., 0].tolist()):
            starts[clip].append(row[0])
            assert row == list(range(row[0], row[0] + longest))
    assert set(starts[1]) == set(starts[2]) == {0}
    for clip, choices in ((0, 6), (3, 3)):
        shares = torch.bincount(torch.tensor(starts[clip]), minlength=choices) / 400
        assert len(shares) == choices
        # Five standard deviations of a share among 400 draws.
        spread = 5 * (1 / choices * (1 - 1 / choices) / 400) ** 0.5
        assert (shares - 1 / choices).abs().max() < spread
    assert starts[0] != starts[3]


def test_the_generator_alone_decides_and_short_clips_stay_whole() -> None:
    audio = codes([9, 8])
    runs = [crop_codes(audio, 4, torch.Generator().manual_seed(1)).features for _ in range(2)]
    assert torch.equal(*runs)
    assert crop_codes(audio, 9, torch.Generator()) is audio


def test_it_works_in_half_precision_and_with_narrow_integers() -> None:
    model, audio = embedding(), codes([3, 5])
    narrow = AudioFeatures(audio.features.to(torch.int16), audio.mask, audio.pooled)
    assert torch.equal(model(narrow)[0], model(audio)[0])
    half = embedding().to(torch.bfloat16)(audio)[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), model(audio)[0], atol=0.05, rtol=0.05)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model, audio = embedding(), codes([3, 5])
    model.save_pretrained(tmp_path)
    loaded = load_saved_model(CodeEmbedding, tmp_path)
    assert torch.equal(loaded(audio)[0], model(audio)[0])
    assert (loaded.config.max_codes, loaded.mask_id) == (20, ENTRIES)
    (tmp_path / "config.json").write_text('{"_class_name": "CodeEmbedding", "width": 16}')
    with pytest.raises(CheckpointError, match="cannot be loaded as CodeEmbedding"):
        load_saved_model(CodeEmbedding, tmp_path)


def changed(audio: AudioFeatures, value: int) -> AudioFeatures:
    features = audio.features.clone()
    features[1, 2, 0] = value
    return AudioFeatures(features, audio.mask, audio.pooled)


def test_codes_of_another_kind_are_refused() -> None:
    model, audio = embedding(), codes([4, 3])
    other = AudioFeatures(audio.features.float(), audio.mask, audio.pooled)
    with pytest.raises(ConfigError, match=r"type torch\.float32, but .* an encoder that gives co"):
        model(other)
    other = AudioFeatures(audio.features[..., :2], audio.mask, audio.pooled)
    with pytest.raises(ConfigError, match=r"have 2 codebooks, but .* reads 3; .*num_codebooks=2"):
        model(other)
    other = AudioFeatures(audio.features, audio.mask, audio.pooled[:, :3])
    with pytest.raises(ConfigError, match="vector has 3 numbers, but this model reads 5; choose"):
        model(other)
    embedding(sequence_vector=False)(other)  # which has no use for it
    for value in (11, -1):
        message = rf"an audio code is {value}, but .* have 10 entries, 0 to 9; .* codebook_size"
        with pytest.raises(DataError, match=message):
            model(changed(audio, value))
    model.check(changed(audio, 10))  # the mask id
    with pytest.raises(DataError, match="an audio code is 10,"):
        model.check(changed(audio, 10), masked=False)
    padding = audio.features.clone()
    padding[1, 3] = 99
    model(AudioFeatures(padding, audio.mask, audio.pooled))
