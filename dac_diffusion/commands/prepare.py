"""`dac-diffusion prepare`: a data set, its features, a quantiser, a datastore, a detector."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dac_diffusion.commands import prepare_datastore, prepare_detector
from dac_diffusion.data.published.loading import DatasetName

if TYPE_CHECKING:
    from dac_diffusion.data.feature_preparation import PreparedFeatures
    from dac_diffusion.data.published.dataset import CaptionDataset
    from dac_diffusion.data.published.wavcaps import WavCapsSettings

PROBLEMS_FILE = "problems.txt"
PROBLEMS_SHOWN = 10


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "prepare",
        help="write a dataset folder, a feature cache, a quantiser, a datastore or a detector",
    )
    kinds = parser.add_subparsers(title="what to prepare", required=True, metavar="WHAT")
    _add_soundscapes(kinds)
    _add_features(kinds)
    _add_quantizer(kinds)
    prepare_datastore.add_parser(kinds)
    prepare_detector.add_parser(kinds)


def _add_soundscapes(kinds: argparse._SubParsersAction) -> None:
    soundscapes = kinds.add_parser(
        "soundscapes", help="scenes of synthesized or recorded sounds with five captions each"
    )
    add = soundscapes.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    add("--clips", type=Path, metavar="FOLDER", help="labelled recordings with a clips.csv")
    add("--scenes", type=int, default=100, metavar="N", help="how many (100)")
    add(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="of the clips (train)",
    )
    add("--seed", type=int, default=0, help="the same seed gives the same scenes (0)")
    soundscapes.set_defaults(run=run_soundscapes)


def _add_features(kinds: argparse._SubParsersAction) -> None:
    features = kinds.add_parser(
        "features",
        help="the audio features of a captioned data set, encoded once for training",
        description="Encode every recording of a data set once. A run that was interrupted goes on "
        "where it was; recordings that changed are encoded again, and new captions taken over "
        "without encoding. Faults of the table are warnings, broken recordings errors.",
    )
    add = features.add_argument
    add("--dataset", choices=get_args(DatasetName), required=True, help="how it is laid out")
    add(
        "--captions",
        type=Path,
        required=True,
        metavar="FILE_OR_FOLDER",
        help="the table of captions of one split, or the folder it is in; of WavCaps one JSON "
        "file or the folder of all four",
    )
    add("--audio", type=Path, required=True, metavar="FOLDER", help="where the recordings are")
    add("--encoder", required=True, help="small, beats, ced, htsat, laion_clap, codes, paired")
    add("--weights", required=True, metavar="PATH", help="of the encoder; builtin, for small")
    add("--output", type=Path, required=True, metavar="DIR", help="the feature cache")
    add("--window-seconds", type=float, metavar="S", help="of a recording (the encoder's own)")
    add(
        "--frequency-pooling",
        choices=("none", "mean"),
        help="mean: one feature for all frequencies of a time; not of small or codes (the "
        "encoder's own)",
    )
    add("--processes", type=int, default=1, metavar="N", help="on a CPU one for each core (1)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (auto)")
    add("--limit", type=int, metavar="N", help="the first N clips only")
    add("--quiet", action="store_true", help="no progress bar")
    _add_wavcaps(features)
    features.set_defaults(run=run_features)


def _add_wavcaps(features: argparse.ArgumentParser) -> None:
    """The options that only WavCaps has."""
    add = features.add_argument
    add(
        "--exclude",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="of WavCaps: lists of clips to leave out, such as its published blacklists, DCASE's "
        "list of forbidden clips, tables of AudioCaps, metadata of Clotho",
    )
    add("--shortest-seconds", type=float, metavar="S", help="of WavCaps: no shorter clips")
    add("--longest-seconds", type=float, metavar="S", help="of WavCaps: no longer clips")


def _add_quantizer(kinds: argparse._SubParsersAction) -> None:
    quantizer = kinds.add_parser(
        "quantizer",
        help="codebooks for the features of a feature cache, as CLAP-ART has them",
        description="Fit a residual quantiser to the features of a cache that `prepare features` "
        "made, by k-means, one codebook after another on what those before it have left.",
    )
    add = quantizer.add_argument
    add("cache", type=Path, metavar="CACHE", help="the feature cache")
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    add("--stages", type=int, default=16, metavar="N", help="codebooks (16)")
    add("--entries", type=int, default=1024, metavar="N", help="of each codebook (1024)")
    add("--steps", type=int, default=50, metavar="N", help="batches for each codebook (50)")
    add("--batch-frames", type=int, default=32768, metavar="N", help="of a batch (32768)")
    add("--normalise", action="store_true", help="every dimension to mean 0 and variance 1 first")
    add("--seed", type=int, default=0, help="the same seed gives the same codebooks (0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (auto)")
    add("--quiet", action="store_true", help="no progress bar")
    quantizer.set_defaults(run=run_quantizer)


def run_soundscapes(arguments: argparse.Namespace) -> list[str]:
    """Write the scenes and say where; returns no errors, as every failure ends the run."""
    from dac_diffusion.data.soundscapes.prepare import prepare_soundscapes

    table = prepare_soundscapes(
        output=arguments.output,
        clips=arguments.clips,
        scenes=arguments.scenes,
        split=arguments.split,
        seed=arguments.seed,
    )
    print(table)
    return []


def run_features(arguments: argparse.Namespace) -> list[str]:
    """Write the feature cache and say what it holds; returns the errors of broken recordings."""
    from dac_diffusion.commands.caption import choose_device
    from dac_diffusion.data.feature_encoding import FeatureSettings
    from dac_diffusion.data.feature_preparation import prepare_features
    from dac_diffusion.data.published.loading import read_dataset

    settings = FeatureSettings(
        encoder=arguments.encoder,
        weights=arguments.weights,
        window_seconds=arguments.window_seconds,
        frequency_pooling=arguments.frequency_pooling,
        device=choose_device(arguments.device),
        processes=arguments.processes,
    )
    dataset = read_dataset(
        arguments.dataset, arguments.captions, arguments.audio, _wavcaps_settings(arguments)
    )
    dataset = _limited(dataset, arguments.limit)
    prepared = prepare_features(dataset, arguments.output, settings, not arguments.quiet)
    _warn_of_problems(dataset, arguments)
    print(_summary(prepared, dataset, arguments.output))
    return list(prepared.errors)


def run_quantizer(arguments: argparse.Namespace) -> list[str]:
    """Write the quantiser and say what each stage leaves; every failure ends the run."""
    from dac_diffusion.codecs.quantizer_fitting import QuantizerFitting
    from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
    from dac_diffusion.commands.caption import choose_device
    from dac_diffusion.data.feature_cache import FeatureCache
    from dac_diffusion.data.feature_quantizer import fit_quantizer_on_cache
    from dac_diffusion.files import atomic_folder, check_replaceable
    from dac_diffusion.saved_models import is_saved

    check_replaceable(arguments.output, is_saved(arguments.output, ResidualQuantizer.__name__))
    # Around the work, so that a folder that cannot be written is known before it.
    with atomic_folder(arguments.output) as partial:
        quantizer, left = fit_quantizer_on_cache(
            FeatureCache.open(arguments.cache),
            num_codebooks=arguments.stages,
            codebook_size=arguments.entries,
            normalise=arguments.normalise,
            fitting=QuantizerFitting(arguments.steps, arguments.seed),
            batch_frames=arguments.batch_frames,
            device=choose_device(arguments.device),
            progress=not arguments.quiet,
        )
        quantizer.save_pretrained(partial)
    print(f"{arguments.output}: {arguments.stages} codebooks of {arguments.entries} entries")
    for stage, share in enumerate(left, start=1):
        print(f"stage {stage}: {share:.2%} of the variance left")
    return []


def _wavcaps_settings(arguments: argparse.Namespace) -> WavCapsSettings | None:
    """What to leave out of WavCaps, or None where no such option is given."""
    from dac_diffusion.data.published.wavcaps import WavCapsSettings

    shortest, longest = arguments.shortest_seconds, arguments.longest_seconds
    if not arguments.exclude and shortest is None and longest is None:
        return None
    return WavCapsSettings(tuple(arguments.exclude), shortest, longest)


def _limited(dataset: CaptionDataset, limit: int | None) -> CaptionDataset:
    from dataclasses import replace

    from dac_diffusion.errors import ConfigError

    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: must be at least 1")
    return replace(dataset, clips=dataset.clips[:limit])


def _warn_of_problems(dataset: CaptionDataset, arguments: argparse.Namespace) -> None:
    """Show the first faults of the table, and write all of them beside the features."""
    from dac_diffusion.files import atomic_write

    path = arguments.output / PROBLEMS_FILE
    with atomic_write(path) as file:
        file.writelines(f"{problem}\n" for problem in dataset.problems)
    shown = list(dataset.problems[:PROBLEMS_SHOWN])
    more = len(dataset.problems) - len(shown)
    if more:
        shown.append(f"and {more} more problems, all of them in {path}")
    if arguments.dataset == "wavcaps" and not arguments.exclude:
        shown.append(
            "WavCaps holds clips of AudioCaps' and Clotho's test sets; --exclude leaves them out"
        )
    for line in shown:
        print(f"dac-diffusion: warning: {line}", file=sys.stderr)


def _summary(prepared: PreparedFeatures, dataset: CaptionDataset, output: Path) -> str:
    facts = [f"{prepared.encoded} recordings encoded now"]
    if prepared.cut:
        facts.append(f"{prepared.cut} cut to the window")
    if dataset.excluded:
        facts.append(f"{len(dataset.excluded)} clips excluded")
    if prepared.other_shards:
        facts.append(f"{prepared.other_shards} shards of other clips kept")
    return f"{output}: {prepared.clips} clips ({', '.join(facts)})"
