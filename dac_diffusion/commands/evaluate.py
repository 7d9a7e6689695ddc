"""`dac-diffusion evaluate`: score predicted captions against references."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dac_diffusion.commands.external_options import add_options, external_metrics
from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dac_diffusion.data.predictions import Pairing
    from dac_diffusion.metrics.bert_score import BertScorer
    from dac_diffusion.metrics.evaluation import Evaluation, ExtraMetric
    from dac_diffusion.metrics.sentence_similarity import SentenceVectors


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser("evaluate", help="score predicted captions against references")
    add = parser.add_argument
    add(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="a CSV with file_name,caption_predicted, or the jsonl of `caption`",
    )
    add(
        "references",
        type=Path,
        metavar="REFERENCES",
        help="a CSV of captions with Clotho's or AudioCaps' columns",
    )
    add("--output", type=Path, metavar="FILE", help="write all scores, also of each clip, as JSON")
    add("--compare", type=Path, metavar="PREDICTIONS", help="other predictions for the same clips")
    add("--allow-missing", action="store_true", help="score only what is in both files")
    add("--train-captions", type=Path, metavar="CSV", help="count captions copied from these")
    add("--minilm", action="store_true", help="similarity by all-MiniLM-L6-v2 (extra contextual)")
    add("--bert", type=Path, metavar="FOLDER", help="BERTScore with the model in this folder")
    add("--bert-layer", type=int, metavar="N", help="whose hidden states it compares (the last)")
    add("--event-names", type=Path, metavar="YAML", help="sounds named, by this table of names")
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> list[str]:
    """Score the predictions, print the table and write the JSON; returns no errors."""
    from dac_diffusion.files import atomic_write

    if arguments.bert_layer is not None and arguments.bert is None:
        raise ConfigError("--bert-layer needs --bert FOLDER, the model whose layer it is")
    # The output first: a wrong folder shows before the work.
    with nullcontext() if arguments.output is None else atomic_write(arguments.output) as file:
        report = _evaluate(arguments)
        if file is not None:
            json.dump(report, file, indent=1, allow_nan=False)
            file.write("\n")
    return []


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the tables; returns the JSON report."""
    from dac_diffusion.data.predictions import pair, read_predictions, shared_clips
    from dac_diffusion.data.tables import read_captions
    from dac_diffusion.metrics.evaluation import evaluate
    from dac_diffusion.metrics.evaluation_report import as_json, as_table

    references = read_captions(arguments.references)
    paths = [arguments.predictions, *([arguments.compare] if arguments.compare else [])]
    pairings = [pair(read_predictions(p), references, arguments.allow_missing) for p in paths]
    clips = shared_clips(pairings)
    training = None
    if arguments.train_captions is not None:
        training = [
            c for of_clip in read_captions(arguments.train_captions).values() for c in of_clip
        ]
    extra = [*_event_metrics(arguments.event_names), *external_metrics(arguments, clips[0])]
    minilm, bert = _load_models(arguments)
    evaluations = [evaluate(of_system, training, minilm, bert, extra) for of_system in clips]
    evaluations[0].notes.extend(_left_out(pairings, len(clips[0])))
    report = as_json(evaluations[0])
    report["settings"] |= _describe_models(minilm, bert)
    report["settings"]["event_names"] = arguments.event_names and str(arguments.event_names)
    report["references"] = str(arguments.references)
    report["train_captions"] = str(arguments.train_captions) if training is not None else None
    report["predictions"] = _describe_file(pairings[0])
    report["comparison"] = None
    print(as_table(evaluations[0]))
    if arguments.compare is not None:
        report["comparison"] = {
            "predictions": _describe_file(pairings[1]),
            **_compare(evaluations, arguments.compare),
        }
    return report


def _compare(evaluations: Sequence[Evaluation], path: Path) -> dict[str, Any]:
    """Print the differences between two systems; returns them, with the second one's scores."""
    from dac_diffusion.metrics.comparison import SEED, compare
    from dac_diffusion.metrics.evaluation_report import as_json, comparison_table

    differences = compare(evaluations[0], evaluations[1])
    print(f"\n{comparison_table(differences)}\ndifference: {path} is subtracted")
    return {
        "corpus": as_json(evaluations[1])["corpus"],
        "seed": SEED,
        "differences": {name: asdict(interval) for name, interval in differences.items()},
    }


def _event_metrics(table: Path | None) -> list[ExtraMetric]:
    """Event naming where a table of names is given."""
    if table is None:
        return []
    from dac_diffusion.metrics.event_agreement import event_metrics
    from dac_diffusion.metrics.event_naming import load_event_namer

    return event_metrics(load_event_namer(table))


def _load_models(
    arguments: argparse.Namespace,
) -> tuple[SentenceVectors | None, BertScorer | None]:
    """The models that the optional metrics ask for."""
    minilm = bert = None
    if arguments.minilm:
        from dac_diffusion.metrics.sentence_similarity import load_minilm

        minilm = load_minilm()
    if arguments.bert is not None:
        from dac_diffusion.libraries import quiet_libraries
        from dac_diffusion.metrics.bert_score import BertScorer

        with quiet_libraries():
            bert = BertScorer(arguments.bert, arguments.bert_layer)
    return minilm, bert


def _describe_models(minilm: SentenceVectors | None, bert: BertScorer | None) -> dict[str, Any]:
    found: dict[str, Any] = {"minilm": None, "bert": None}
    if minilm is not None:
        from dac_diffusion.metrics.sentence_similarity import MODEL

        found["minilm"] = MODEL
    if bert is not None:
        found["bert"] = {"folder": str(bert.folder), "layer": bert.layer}
    return found


def _describe_file(pairing: Pairing) -> dict[str, Any]:
    return {
        "path": str(pairing.predictions.path),
        "without_references": pairing.without_references,
        "references_without_prediction": pairing.without_prediction,
        "failed": pairing.predictions.failed,
    }


def _left_out(pairings: Sequence[Pairing], scored: int) -> list[str]:
    """What is not scored although it stands in one of the files."""
    return [
        f"only {scored} clips are scored (--allow-missing): {pairing.predictions.path} has "
        f"{len(pairing.without_references)} predictions without references and lacks "
        f"{len(pairing.without_prediction)} of the references' clips"
        for pairing in pairings
        if pairing.without_references or pairing.without_prediction
    ]
