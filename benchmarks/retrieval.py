"""RECAP's datastore: does it name sounds that it was never trained on, once it may read of them?

    dac-diffusion train configs/ablations/recap_unseen.yaml soundscapes.clips=PATH/TO/clips
    python benchmarks/retrieval.py --model runs/recap_unseen/model --minilm --threads 1 \\
        --output benchmarks/results/retrieval.json.gz
    python benchmarks/retrieval.py --model runs/recap_unseen/model --limit 10 --k 3   # a quick look
    python benchmarks/retrieval.py --model runs/recap_unseen_frozen/model \\
        --config configs/ablations/recap_unseen_frozen.yaml       # with caption_language_model.py

The sounds in soundscapes.held_out_labels of --config were in no training scene and no training
caption. Captioned are validation scenes that each have one of them ("unseen"), and scenes that have
none ("seen"). Captions are looked up in stores that are swapped in without any training:

none             nothing is looked up
10 %, 100 %      captions of so many of the training clips, drawn at random
100 % + unseen   beside them captions of scenes with the sounds that were held out, other scenes
                 than are captioned here: --store-scenes training scenes are looked through
unseen           these alone

k captions are shown; it was trained with 3, as published. shuffled: every scene is shown what was
found for another one, so what the prompts give beyond filling their place is the difference.

cosine: of the captions found, mean. found: share of the held-out sounds in the scenes that some
shown caption names. held-out named: share of them that the new caption names (event_synonyms.yaml);
on seen scenes, the share of captions that name one although none is there. Decoding is greedy. The
encoder and the joint space were trained on all sounds, as a published CLAP was trained on more than
the captioner's data. A captioner that starts from nothing never learnt the words either; the one of
recap_unseen_frozen.yaml keeps a GPT-2 that has read them (caption_language_model.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    FOLDER,
    SYNONYMS,
    Row,
    add_clips,
    base_parser,
    check_output,
    derangement,
    machine_line,
    markdown_table,
    report,
    run_main,
    write_report,
)
from judged_scenes import NUMBERS, Judge, add_minilm, load_any_captioner, means
from quality import load_vectors
from retrieval_parts import (
    BOTH_STORES,
    TRAINING_STORE,
    HeardScenes,
    hear,
    make_stores,
    training_captions,
    unseen_captions,
    write_captions,
)
from tqdm import tqdm

from dac_diffusion.configuration import load_config
from dac_diffusion.errors import ConfigError
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer
from dac_diffusion.retrieval.datastore import CaptionDatastore, Retrieved
from dac_diffusion.training.settings import TrainingConfig

CONFIG = FOLDER.parent / "configs/ablations/recap_unseen.yaml"
COLUMNS = {
    "set": "scenes",
    "store": "datastore",
    "captions": "captions in it|,d",
    "k": "k|d",
    "shuffled": "shuffled",
    "cosine": "cosine|.3f",
    "found": "found|.1%",
    "held_out_named": "held-out named|.1%",
    **NUMBERS,
}
NOTHING = Retrieved((), (), ())


@dataclass(frozen=True)
class Shown:
    """What is shown to the captioner for each scene, and how it came about."""

    store: str
    captions: int
    k: int
    shuffled: bool
    found: list[Retrieved]

    def row(self) -> Row:
        """The head of its line in the table."""
        scores = [score for one in self.found for score in one.scores]
        return {
            "store": self.store,
            "captions": self.captions,
            "k": self.k,
            "shuffled": "yes" if self.shuffled else "",
            "cosine": sum(scores) / len(scores) if scores else None,
        }


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    minilm = load_vectors(args)
    captioner = load_recap(args)
    held_out = held_out_labels(args.config)
    sets = [hear(captioner, name, held_out, args) for name in ("unseen", "seen")]
    training = training_captions(args.model)
    stores = make_stores(captioner, training, unseen_captions(held_out, args), args)
    table: list[Row] = []
    raw: dict[str, list[Row]] = {}
    for one in sets:
        references = [scene.references for scene in one.scenes]
        judge = Judge([scene.labels for scene in one.scenes], references, minilm)
        raw[one.name] = [scene.row() for scene in one.scenes]
        ways = everything_shown(captioner, one, stores, args)
        for shown in tqdm(ways, desc=f"captioning {one.name}", unit="store"):
            captions = write_captions(captioner, one, [each.captions for each in shown.found])
            head = {"set": one.name, **shown.row()}
            numbers = naming(one, shown, captions, held_out, judge.namer)
            table.append({**head, **numbers, **means(judge.judge(captions))})
            found = [list(each.captions) for each in shown.found]
            raw[f"captions of {one.name}"] = [
                *raw.get(f"captions of {one.name}", []),
                {**head, "captions": captions, "found": found},
            ]
    print(markdown_table(table, COLUMNS))
    leaks = named_in(training, held_out)
    print(f"\nheld out: {', '.join(held_out)}")
    print(
        "its own datastore's different captions, and how many of them name one: {}, {}".format(
            *leaks
        )
    )
    print(f"{args.limit} scenes of each set; {machine_line()}")
    content = report("retrieval", args, table, raw)
    write_report(args.output, {**content, "held_out": held_out, "named_in_training": leaks})


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add_minilm(parser)
    parser.set_defaults(model="runs/recap_unseen/model")
    add = parser.add_argument
    add("--limit", type=int, default=200, help="number of scenes in each of the two sets")
    add("--scene-seed", type=int, default=0)
    add("--config", type=Path, default=CONFIG, help="what the captioner was trained with")
    add("--store-scenes", type=int, default=1500, help="training scenes looked through")
    add("--shares", type=float, nargs="+", default=[0.1], help="of the training clips, beside 1")
    add("--k", type=int, nargs="+", default=[1, 2, 3, 4], help="captions shown")
    return parser.parse_args()


def load_recap(args: argparse.Namespace) -> Any:
    """The captioner; raises ConfigError for one that this cannot be asked of."""
    captioner = load_any_captioner(args)
    if captioner.config.get("retrieved") is None:
        raise ConfigError(f"--model {args.model}: looks nothing up; give a RECAP captioner")
    if captioner.config.retrieval_space != "scorer":
        raise ConfigError(
            f"--model {args.model}: compares by CLAP's vectors; this needs one that was trained "
            "with recap.space=scorer"
        )
    if min(args.k) < 1:
        raise ConfigError(f"--k {min(args.k)}: must be at least 1; none is tried anyway")
    return captioner


def held_out_labels(config: Path) -> list[str]:
    """The sounds that the captioner was not trained on. Raises ConfigError where there are none."""
    labels = load_config(TrainingConfig, config).soundscapes.held_out_labels
    if not labels:
        raise ConfigError(f"--config {config}: soundscapes.held_out_labels is empty; name some")
    return list(labels)


def everything_shown(
    captioner: Any,
    heard: HeardScenes,
    stores: dict[str, CaptionDatastore],
    args: argparse.Namespace,
) -> list[Shown]:
    """What is shown for each scene of a set, in every way that is tried."""
    nothing = [NOTHING] * len(heard.scenes)
    ways = [Shown("none", 0, 0, False, nothing)]
    trained_with = captioner.config.retrieved
    others = derangement(len(heard.scenes), args.seed)
    for name, store in stores.items():
        for k in args.k:
            found = store.search(heard.vectors, k, width=captioner.config.search_width)
            ways.append(Shown(name, len(store), k, False, found))
        if name in (TRAINING_STORE, BOTH_STORES):
            found = store.search(heard.vectors, trained_with, width=captioner.config.search_width)
            exchanged = [found[other] for other in others]
            ways.append(Shown(name, len(store), trained_with, True, exchanged))
    return ways


def naming(
    heard: HeardScenes,
    shown: Shown,
    captions: Sequence[str],
    held_out: Sequence[str],
    namer: EventNamer,
) -> Row:
    """How often held-out sounds are named, in what was shown and in what was written."""
    if heard.name == "seen":
        named = [namer.named_share([text], held_out) > 0 for text in captions]
        return {"found": None, "held_out_named": sum(named) / len(named)}
    total = sum(map(len, heard.held_out))

    def share(texts: Sequence[Sequence[str]]) -> float:
        pairs = zip(texts, heard.held_out, strict=True)
        return sum(namer.named_share(own, labels) * len(labels) for own, labels in pairs) / total

    return {
        "found": share([one.captions for one in shown.found]),
        "held_out_named": share([[text] for text in captions]),
    }


def named_in(training: dict[str, list[str]], held_out: Sequence[str]) -> list[int]:
    """How many different captions it was trained on, and how many name a held-out sound: none."""
    namer = load_event_namer(SYNONYMS)
    texts = {text for own in training.values() for text in own}
    return [len(texts), sum(namer.named_share([text], held_out) > 0 for text in texts)]


if __name__ == "__main__":
    run_main(main)
