"""Caption recordings with a trained captioner.

    python scripts/sample.py recordings/                       # the built-in checkpoint
    python scripts/sample.py dog.wav --model runs/soundscapes --num-steps 4
    python scripts/sample.py recordings/ --format csv --output predictions.csv

The same as `dac-diffusion caption`; `--help` lists all settings.
"""

import sys

from dac_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main(["caption", *sys.argv[1:]]))
