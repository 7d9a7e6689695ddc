"""Write soundscapes as files, in Clotho's layout and columns.

    python scripts/prepare_soundscapes.py --output data/soundscapes --scenes 1000
    python scripts/prepare_soundscapes.py --output data/soundscapes --split validation \
        --clips ../shared/data/clips

The same as `dac-diffusion prepare soundscapes`.
"""

import sys

from dac_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "soundscapes", *sys.argv[1:]]))
