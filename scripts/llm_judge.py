"""Let a language model grade captions from 0 to 10, by the reference captions.

    export OPENAI_API_KEY=...
    python scripts/llm_judge.py predictions.csv clotho_captions_evaluation.csv \
        --url https://api.openai.com/v1 --model gpt-4o-mini --output judged.json \
        --cache judged_cache.jsonl --price-per-million-input 0.15 --price-per-million-output 0.6
    python scripts/llm_judge.py predictions.jsonl references.csv \
        --url http://localhost:8000/v1 --model Qwen/Qwen3-8B --output judged.json --yes

Any OpenAI-compatible endpoint serves. The first (best) caption of each recording is judged. Before
anything is sent, the cost is shown and confirmed. A run that was interrupted goes on from its
cache. The values are not comparable with those of the DAC paper, whose prompt is not published.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from tqdm import tqdm

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.chat_endpoint import ChatEndpoint
from dac_diffusion.data.predictions import pair, read_predictions
from dac_diffusion.data.tables import read_captions
from dac_diffusion.errors import ConfigError, DacError
from dac_diffusion.files import atomic_write
from dac_diffusion.metrics.llm_judge import JudgedCaption, estimate_cost, judge, report

URL_VARIABLE = "DAC_DIFFUSION_JUDGE_URL"


def parse_arguments() -> argparse.Namespace:
    """The command line; a usage error ends the program."""
    parser = argparse.ArgumentParser(description="Let a language model grade captions.")
    add = parser.add_argument
    add("predictions", type=Path, help="DCASE csv or our jsonl")
    add("references", type=Path, help="Clotho or AudioCaps csv")
    add("--url", default=os.environ.get(URL_VARIABLE), help=f"of the endpoint (${URL_VARIABLE})")
    add("--model", required=True, help="its name at the endpoint")
    add("--output", type=Path, required=True, metavar="FILE.json")
    add("--cache", type=Path, metavar="FILE.jsonl", help="(the output's name with .cache.jsonl)")
    add("--key-variable", default="OPENAI_API_KEY", help="that holds the key, if any is needed")
    add("--allow-missing", action="store_true", help="score only recordings that are in both files")
    add("--concurrency", type=int, default=4, help="requests at a time (4)")
    add("--price-per-million-input", type=float, metavar="PRICE", help="of prompt tokens")
    add("--price-per-million-output", type=float, metavar="PRICE", help="of completion tokens")
    add("--yes", action="store_true", help="send without asking")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> int:
    """Judge and write; returns 1 where a caption has no verdict."""
    if not arguments.url:
        raise ConfigError(f"no endpoint: give --url or set {URL_VARIABLE}")
    key = os.environ.get(arguments.key_variable, "").strip() or None
    endpoint = ChatEndpoint(arguments.url, arguments.model, key, f"${arguments.key_variable}")
    pairing = pair(
        read_predictions(arguments.predictions),
        read_captions(arguments.references),
        arguments.allow_missing,
    )
    captions = [JudgedCaption(c.file_name, c.captions[0], c.references) for c in pairing.clips]
    with AnswerCache(arguments.cache or arguments.output.with_suffix(".cache.jsonl")) as cache:
        estimate = estimate_cost(captions, endpoint, cache)
        print(
            f"{len(captions)} captions, {arguments.model} at {endpoint.place}: "
            + estimate.describe(
                arguments.price_per_million_input, arguments.price_per_million_output
            ),
            flush=True,
        )
        if estimate.requests and not arguments.yes:
            confirm()
        with atomic_write(arguments.output) as file:  # first: before anything is paid for
            with tqdm(total=estimate.requests, unit="caption", disable=None) as bar:
                judgement = judge(captions, endpoint, cache, arguments.concurrency, bar.update)
            result = report(captions, judgement, endpoint)
            result["without_references"] = pairing.without_references
            result["without_prediction"] = pairing.without_prediction
            file.write(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    mean = "none" if judgement.mean is None else f"{judgement.mean:.3f}"
    print(f"mean score {mean} of {len(captions) - len(judgement.failures)} captions")
    for name, reason in judgement.failures.items():
        print(f"llm_judge: error: {name}: not judged: {reason}", file=sys.stderr)
    return 1 if judgement.failures else 0


def confirm() -> None:
    """Ask on the terminal; raises DacError for anything but yes."""
    if not sys.stdin.isatty():
        raise ConfigError("nothing was sent: give --yes to agree to the cost")
    if input("Send them? [y/N] ").strip().lower() not in ("y", "yes"):
        raise DacError("nothing was sent: not confirmed")


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        return run(parse_arguments())
    except DacError as error:
        print(f"llm_judge: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("llm_judge: interrupted; run the same command to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
