"""Parameter counts against counts by hand, from the sizes of the papers and of BERT's layers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "dac"
WIDTH, HIDDEN, HEADS = 768, 3072, 12
NORM = 2 * WIDTH


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + bias * outputs


FEED_FORWARD = linear(WIDTH, HIDDEN) + linear(HIDDEN, WIDTH)
ATTENTION = 4 * linear(WIDTH, WIDTH)
BERT_LAYER = ATTENTION + FEED_FORWARD + 2 * NORM


@pytest.fixture(scope="module")
def script() -> Any:
    path = ROOT / "scripts" / "count_parameters.py"
    spec = importlib.util.spec_from_file_location("count_parameters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counts(script: Any) -> dict[str, dict[str, int | None]]:
    names = ("beats_dit", "beats_uvit", "htsat_dit", "htsat_uvit")
    return {name: script.count_parameters(CONFIGS / f"{name}.yaml") for name in names}


def test_beats(counts: dict[str, dict[str, int]]) -> None:
    patches = 16 * 16 * 512  # a convolution without bias
    front = patches + 2 * 512 + linear(512, WIDTH)
    positions = WIDTH * (WIDTH // 16) * 128 + WIDTH  # 16 groups, 128 taps
    biases = 320 * HEADS
    gate = linear(WIDTH // HEADS, 8) + HEADS
    expected = front + positions + biases + NORM + 12 * (BERT_LAYER + gate)
    assert counts["beats_dit"]["encoder"] == counts["beats_uvit"]["encoder"] == expected
    # A published file holds the table of biases once a layer, and the taps' lengths: 90.35 million.
    assert round((expected + 11 * biases + 128) / 1e6, 2) == 90.35


def test_htsat(counts: dict[str, dict[str, int]]) -> None:
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    clap = ClapAudioModelWithProjection(ClapAudioConfig())
    expected = sum(parameter.numel() for parameter in clap.parameters())
    assert counts["htsat_dit"]["encoder"] == counts["htsat_uvit"]["encoder"] == expected


def test_the_two_halves_of_bert(counts: dict[str, dict[str, int]]) -> None:
    head = linear(WIDTH, WIDTH) + NORM + linear(WIDTH, 30522)
    extra = linear(WIDTH, WIDTH)
    embeddings = (30522 + 512 + 2) * WIDTH + NORM
    for row in counts.values():
        assert row["latent_space"] == 6 * BERT_LAYER + extra + head
        assert row["lower_bert"] == 6 * BERT_LAYER + embeddings
    # Both halves, the pooler of BERT-base and its head's own embeddings aside: 110 million.
    row = counts["beats_dit"]
    bert_base = row["lower_bert"] + 6 * BERT_LAYER + linear(WIDTH, WIDTH)
    assert bert_base == 109_482_240


def audio_side(depth: int, audio: int, pooled: int) -> int:
    norms = 2 * audio + 2 * pooled
    projections = linear(audio, WIDTH) + linear(pooled, WIDTH) + linear(WIDTH, WIDTH)
    scale_and_null = 2 * WIDTH
    return norms + projections + scale_and_null + linear(WIDTH, depth * 2 * WIDTH)


def ends_of_the_denoiser(positions: int) -> int:
    time = linear(256, WIDTH) + linear(WIDTH, WIDTH)
    latents = 2 * linear(WIDTH, WIDTH) + linear(WIDTH, WIDTH, bias=False)
    return time + latents + positions * WIDTH


# Self-attention, cross-attention (its keys and values are in the audio side) and perceptron.
BLOCK = ATTENTION + 2 * linear(WIDTH, WIDTH) + FEED_FORWARD


@pytest.mark.parametrize(("name", "pooled"), [("beats", 768), ("htsat", 512)])
def test_the_denoisers(counts: dict[str, dict[str, int]], name: str, pooled: int) -> None:
    dit = 12 * (BLOCK + NORM + linear(WIDTH, 6 * WIDTH)) + linear(WIDTH, 2 * WIDTH)
    dit += ends_of_the_denoiser(40) + audio_side(12, 768, pooled)
    assert counts[f"{name}_dit"]["denoiser"] == dit
    uvit = 13 * (BLOCK + 3 * NORM) + 6 * linear(2 * WIDTH, WIDTH) + NORM
    uvit += ends_of_the_denoiser(41) + audio_side(13, 768, pooled)
    assert counts[f"{name}_uvit"]["denoiser"] == uvit


def test_captions_alone(script: Any, counts: dict[str, dict[str, int]]) -> None:
    """The audio encoder gives one vector of 512, of which the denoiser takes both its inputs."""
    row = script.count_parameters(CONFIGS / "text_only_clap.yaml")
    assert row["encoder"] == counts["htsat_dit"]["encoder"]
    saved = audio_side(12, 768, 512) - audio_side(12, 512, 512)
    assert row["denoiser"] == counts["htsat_dit"]["denoiser"] - saved
    assert row["paper"] is None


def test_totals_and_the_paper_s_figures(counts: dict[str, dict[str, int]]) -> None:
    for row in counts.values():
        assert row["total"] == row["denoiser"] + row["latent_space"] + row["encoder"]
        assert row["with_lower_bert"] == row["total"] + row["lower_bert"]
    figures = {name: row["paper"] for name, row in counts.items()}
    assert figures == {"htsat_uvit": 573e6, "htsat_dit": 597e6,
                       "beats_uvit": 627e6, "beats_dit": 651e6}  # fmt: skip


def test_the_table(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["count_parameters.py", str(CONFIGS / "beats_uvit.yaml")])
    assert script.main() == 0
    heading, line, row = capsys.readouterr().out.splitlines()
    assert heading.startswith("| config | denoiser | latent space | audio encoder | total |")
    assert line.count("---") == heading.count("|") - 1
    cells = row.strip("| ").split(" | ")
    assert cells[0] == "beats_uvit"
    assert (cells[3], cells[-1]) == ("90.31", "627")
    assert float(cells[4]) == pytest.approx(sum(map(float, cells[1:4])), abs=0.02)


def write(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(f"extends: {CONFIGS / 'beats_dit.yaml'}\n{text}\n", encoding="utf-8")
    return path


def test_another_depth_and_split(script: Any, tmp_path: Path, counts: Any) -> None:
    settings = (
        "text: {split_bert: {split_layer: 4}}\ndenoiser: {depth: 11, pooled_condition: false}"
    )
    other, first = script.count_parameters(write(tmp_path, settings)), counts["beats_dit"]
    assert other["latent_space"] - first["latent_space"] == 2 * BERT_LAYER
    assert first["lower_bert"] - other["lower_bert"] == 2 * BERT_LAYER
    block = BLOCK + NORM + linear(WIDTH, 6 * WIDTH) + linear(WIDTH, 2 * WIDTH)
    assert first["denoiser"] - other["denoiser"] == block


def test_no_figure_of_the_paper(script: Any, tmp_path: Path) -> None:
    path = write(tmp_path, "denoiser: {kind: caption}")
    assert script.count_parameters(path)["paper"] is None
    assert script.table([path]).endswith(" |  |")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("system: autoregressive", "system=autoregressive; only diffusion captioners are counted"),
        ("encoder: {name: ced}", "encoder.name=ced"),
        ("encoder: {weights: random}", "encoder.weights=random"),
        ("encoder: {name: htsat, weights: my_clap}", "only laion/clap-htsat-unfused is counted"),
        ("text: {latent_space: embedding}", "text.latent_space=embedding"),
        ("text: {split_bert: {bert: my_bert}}", "bert=my_bert"),
        ("text: {split_bert: {vocabulary: captions}}", "vocabulary=captions"),
    ],
)
def test_what_has_no_published_sizes_is_an_error(
    script: Any, tmp_path: Path, settings: str, message: str
) -> None:
    path = write(tmp_path, settings)
    with pytest.raises(ConfigError) as error:
        script.count_parameters(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")


def test_an_error_is_one_line(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["count_parameters.py", "no_such.yaml"])
    assert script.main() == 1
    captured = capsys.readouterr()
    assert captured.err == "count_parameters: error: no_such.yaml: there is no such file\n"
    assert captured.out == ""
