"""What full_size.py shows: ratios to the reference systems, parameters by part, tables, notes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common import Row, markdown_table
from stopwatch import parameters_by_part, spread
from systems import Setting
from timed_group import counted

NOTE = "note"  # the only value of a row that says what was not timed, and why
COLUMNS = {
    "model": "system",
    "setting": "setting",
    "dtype": "dtype",
    "batch_size": "clips",
    "network_calls": "network calls",
    "aps": "APS|.3f",
    "aps_low": "10 %|.3f",
    "aps_high": "90 %|.3f",
    "tps": "TPS|.1f",
    "ratio": "APS / BART-base size greedy|.2f",
    "ratio_guided": "APS / DAC DiT 17 steps, guidance|.2f",
    "ratio_few": "APS / DAC DiT 4 steps|.2f",
    "encoding": "encoding s/clip|.3f",
    "generation": "generation s/clip|.3f",
    "ranking": "ranking s/clip|.3f",
    "text": "text s/clip|.4f",
    "peak_gigabytes": "peak GB|.2f",
    "rounds": "rounds",
}
PARTS = ("codec", "encoder", "clap", "projection", "network", "latent_space")
PARAMETERS = {
    "model": "system",
    "codec": "codec or quantiser|.2f",
    "encoder": "audio encoder|.2f",
    "clap": "CLAP|.2f",
    "projection": "projection|.2f",
    "network": "denoiser or network|.2f",
    "latent_space": "latent space|.2f",
    "total": "total|.2f",
}


def with_ratios(
    rows: Sequence[Row], settings: Sequence[Setting], references: Mapping[str, Setting]
) -> list[Row]:
    """Rows of a group with their APS divided by each reference's, between neighbours in time.

    settings: of the rows, in their order, references among them. Medians over the rounds, and as
    "_low" and "_high" the 10th and 90th percentile.
    """
    seconds = [
        [counted(one, setting) for one in row["raw"]["measured"]]
        for row, setting in zip(rows, settings, strict=True)
    ]
    found = [dict(row) for row in rows]
    for key, reference in references.items():
        beside = seconds[list(settings).index(reference)]
        for row, own in zip(found, seconds, strict=True):
            ratios = [first / each for first, each in zip(beside, own, strict=True)]
            row[f"{key}_low"], row[key], row[f"{key}_high"] = spread(ratios)
    return found


def parameters_of(captioner: Any) -> dict[str, int]:
    """Parameters of the networks that writing needs, by what they are (see PARTS)."""
    from dac_diffusion.codecs.code_encoder import CodeEncoder
    from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder

    parts = parameters_by_part(captioner)
    if "denoiser" in parts:
        parts["network"] = parts.pop("denoiser")
    encoder = captioner.encoder
    if not isinstance(encoder, CodeEncoder):
        return parts
    whole = parts.pop("encoder")  # codebooks included, whether they are parameters or not
    parts["clap"] = _count(encoder.sequence_encoder)
    parts["codec"] = whole - parts["clap"]
    if isinstance(encoder.codec, QuantizedEncoder):
        parts["encoder"] = _count(encoder.codec.encoder)
        parts["codec"] -= parts["encoder"]
    return parts


def parameter_rows(rows: Sequence[Row]) -> list[Row]:
    """Millions of parameters of every system by part."""
    by_model = {
        row["model"]: row["parameters_by_part"] for row in rows if "parameters_by_part" in row
    }
    return [
        {
            "model": model,
            **{name: parts[name] / 1e6 for name in PARTS if name in parts},
            "total": sum(parts.values()) / 1e6,
        }
        for model, parts in by_model.items()
    ]


def in_order(
    rows: Sequence[Row], dtypes: Sequence[str], references: Collection[Setting]
) -> list[Row]:
    """The measured rows by dtype, number of clips and system, each reference once.

    A reference was timed in every group; the first row of it stays, as the ratios of all systems
    are to the one in their own group.
    """
    names = [(setting.model, setting.name) for setting in references]
    kept: dict[Any, Row] = {}
    for number, row in enumerate(row for row in rows if NOTE not in row):
        name = (row["model"], row["setting"])
        again = None if name in names else number
        kept.setdefault((row["dtype"], row["batch_size"], name, again), row)
    return sorted(kept.values(), key=lambda row: (dtypes.index(row["dtype"]), row["batch_size"]))


def notes_of(rows: Sequence[Row]) -> list[str]:
    """What was not timed, and why, each once."""
    return list(dict.fromkeys(row[NOTE] for row in rows if NOTE in row))


def as_markdown(rows: Sequence[Row], systems: Mapping[str, str], notes: Sequence[str]) -> str:
    """Both tables, what the systems are, and what was not timed."""
    shown = list(dict.fromkeys(row["model"] for row in rows))
    lines = [
        markdown_table(rows, shown_columns(rows, COLUMNS)),
        "\nMillions of parameters:\n",
        markdown_table(parameter_rows(rows), PARAMETERS),
        "",
        *(f"- {name}: {systems[name]}" for name in shown),
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines)


def shown_columns(rows: Sequence[Row], columns: Mapping[str, str]) -> dict[str, str]:
    """The columns without those that no row has a value for, such as memory on a CPU."""
    return {
        key: column
        for key, column in columns.items()
        if any(row.get(key) is not None for row in rows)
    }


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
