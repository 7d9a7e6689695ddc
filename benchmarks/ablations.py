"""What the parts of the autoregressive systems are good for: runs that differ in one setting.

    for name in rvq_1 rvq_4 rvq_8 rvq_16 no_sequence_vector; do
        dac-diffusion train configs/ablations/$name.yaml soundscapes.clips=PATH/TO/clips; done
    dac-diffusion train configs/ablations/no_sequence_vector.yaml codec.num_codebooks=1 \\
        output_dir=runs/rvq_1_no_vector soundscapes.clips=PATH/TO/clips
    python benchmarks/ablations.py one=runs/rvq_1/model four=runs/rvq_4/model \\
        eight=runs/rvq_8/model sixteen=runs/rvq_16/model no_vector=runs/no_sequence_vector/model \\
        one_no_vector=runs/rvq_1_no_vector/model --against eight --minilm --threads 1 \\
        --output benchmarks/results/ablations.json.gz
    python benchmarks/ablations.py eight=runs/rvq_8/model --limit 20            # a quick look

Each is given as NAME=MODEL. Captions are greedy, one for each of the fixed validation scenes and
of the val recordings. Shuffled: every scene gets another one's caption. Variance left: the share of
the variance of the encoder's features, in these scenes, that the codes do not hold; of captioners
with k-means codes only. Against: the difference in CIDEr-D to one of them, with its 95 % interval,
paired over scenes. Parameters: of everything that writing needs. Captions are kept in --folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from arms import arms
from common import (
    SYNONYMS,
    Row,
    add_clips,
    base_parser,
    check_output,
    derangement,
    in_chunks,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    validation_scenes,
    write_report,
)
from judged_scenes import (
    NUMBERS,
    Judge,
    LabelledScene,
    add_minilm,
    labelled_scenes,
    means,
    windows_of,
)
from kept_captions import caption_all
from quality import load_vectors
from stopwatch import parameters_by_part
from systems import Setting, saved_decoding
from torch import Tensor
from tqdm import tqdm

from dac_diffusion.captioning.window_encoding import encode_windows
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.quantizer_fitting import MEASURED_BATCHES, share_left
from dac_diffusion.errors import ConfigError
from dac_diffusion.metrics.bootstrap import bootstrap_mean_difference
from dac_diffusion.metrics.event_naming import load_event_namer

COLUMNS = {
    "system": "run",
    "codebooks": "codebooks|d",
    "sequence_vector": "vector",
    "variance_left": "variance left|.1%",
    **NUMBERS,
    "shuffled_cider_d": "shuffled CIDEr-D|.3f",
    "named": "recordings named|.1%",
    "parameters": "parameters|,d",
    "difference": "against|+.3f",
    "interval": "95 % interval",
}


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    settings = greedy_settings(args)
    minilm = load_vectors(args)
    use_threads(args)
    scenes = labelled_scenes(args)
    judge = Judge([s["labels"] for s in scenes], [s["references"] for s in scenes], minilm)
    raw: dict[str, list[Row]] = {"scenes": scenes}
    table: list[Row] = []
    scores: dict[str, list[float]] = {}
    for setting in tqdm(settings, desc="runs", unit="run"):
        kept = caption_all(setting, args)
        judged = judge.judge([row["captions"][0] for row in kept["scenes"]])
        scores[setting.system] = [row["cider_d"] for row in judged]
        table.append(
            {
                "system": setting.system,
                **described(setting.model, args),
                **means(judged),
                **controls(kept, judge, args),
            }
        )
        raw[setting.system] = [*kept["scenes"], *kept["recordings"]]
    for row in table:
        row |= against(row["system"], args.against, scores)
    print(markdown_table(table, COLUMNS))
    print(f"\n{args.limit} scenes; {machine_line()}")
    write_report(args.output, report("ablations", args, table, raw))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add_minilm(parser)
    add = parser.add_argument
    add("models", nargs="+", metavar="NAME=MODEL", help="a name, and a checkpoint as --model takes")
    add("--against", metavar="NAME", help="the run that the others are compared with")
    add("--limit", type=int, default=500, help="number of scenes")
    add("--scene-seed", type=int, default=0)
    add("--quantised-scenes", type=int, default=64, help="whose features are looked at, at most")
    add("--folder", type=Path, default=Path("runs/ablations"), help="for the captions")
    return parser.parse_args()


def greedy_settings(args: argparse.Namespace) -> list[Setting]:
    """One setting for each run. Raises ConfigError for what is not autoregressive or named."""
    settings = [
        Setting(name, "greedy", model, 1, call={"decoding": "greedy"})
        for name, model in arms(args.models)
    ]
    for setting in settings:
        if saved_decoding(setting.model) is None:
            raise ConfigError(
                f"{setting.model}: is a diffusion captioner; for those there is arms.py"
            )
    if args.against is not None and args.against not in [s.system for s in settings]:
        raise ConfigError(f"--against {args.against}: none of the runs has this name")
    return settings


def controls(kept: dict[str, list[Row]], judge: Judge, args: argparse.Namespace) -> Row:
    """What the captions score with the wrong sound, and how many recordings they name."""
    captions = [row["captions"][0] for row in kept["scenes"]]
    exchanged = [captions[other] for other in derangement(len(captions), args.seed)]
    found: Row = {"shuffled_cider_d": means(judge.judge(exchanged))["cider_d"]}
    if kept["recordings"]:
        namer = load_event_namer(SYNONYMS)
        named = [namer.names(row["captions"][0], row["label"]) for row in kept["recordings"]]
        found["named"] = sum(named) / len(named)
    return found


def described(model: str, args: argparse.Namespace) -> Row:
    """What a run is made of."""
    from dac_diffusion.systems import load_captioner

    captioner: Any = load_captioner(model, args.dtype)
    found: Row = {"parameters": sum(parameters_by_part(captioner).values())}
    vector = captioner.projection.config.get("sequence_vector")
    if vector is not None:
        found["sequence_vector"] = "yes" if vector else "no"
    codec = getattr(captioner.encoder, "codec", None)
    if codec is not None:
        found["codebooks"] = captioner.encoder.num_codebooks
    if isinstance(codec, QuantizedEncoder):
        found["variance_left_by_stage"] = variance_left(codec, args)
        found["variance_left"] = found["variance_left_by_stage"][-1]
    return found


@torch.inference_mode()
def variance_left(codec: QuantizedEncoder, args: argparse.Namespace) -> list[float]:
    """The share of the features' variance that is left after each codebook, in some scenes."""
    count = min(args.limit, args.quantised_scenes)
    frames = torch.cat(list(scene_frames(codec.encoder, count, args)))  # (R, D)
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(args.seed))
    # All frames once in as many batches as are measured.
    batches = frames[order].tensor_split(MEASURED_BATCHES)
    return share_left(codec.quantizer, cycle(batches))


def scene_frames(encoder: Any, count: int, args: argparse.Namespace) -> Iterator[Tensor]:
    """The features (S, D) of each scene, without padding."""
    clips = None if str(args.clips) == "none" else args.clips
    for examples in in_chunks(validation_scenes(clips, args.scene_seed), count):
        scenes = [LabelledScene.of(example) for example in examples]
        for window in windows_of(scenes, encoder.sampling_rate):
            audio = encode_windows(encoder, [window], torch.device("cpu"))
            yield audio.features[0, audio.mask[0]].float()  # (S, D)


def against(name: str, other: str | None, scores: dict[str, list[float]]) -> Row:
    """The difference in CIDEr-D to another run; nothing for that run itself."""
    if other is None or name == other:
        return {}
    found = bootstrap_mean_difference(scores[name], scores[other])
    return {
        "difference": found.estimate,
        "interval": f"{found.low:+.3f} to {found.high:+.3f}",
    }


if __name__ == "__main__":
    run_main(main)
