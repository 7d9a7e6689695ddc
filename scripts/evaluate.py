"""Score predicted captions against references.

    python scripts/evaluate.py predictions.csv clotho_captions_evaluation.csv
    python scripts/evaluate.py predictions.jsonl audiocaps/test.csv --output scores.json
    python scripts/evaluate.py ours.jsonl test.csv --compare theirs.csv --minilm

The same as `dac-diffusion evaluate`; `--help` lists all settings.
"""

import sys

from dac_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
