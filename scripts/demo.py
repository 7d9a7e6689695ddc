"""Caption the example recordings with the built-in checkpoint: what `make demo` runs.

    python scripts/demo.py

The same as `dac-diffusion caption dac_diffusion/builtin/examples`. Any option of that command may
follow, for example --num-steps 4 --seed 1.
"""

import sys
from pathlib import Path

from dac_diffusion.cli import main

EXAMPLES = Path(__file__).parents[1] / "dac_diffusion" / "builtin" / "examples"

if __name__ == "__main__":
    sys.exit(main(["caption", str(EXAMPLES), *sys.argv[1:]]))
