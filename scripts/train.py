"""Train the audio encoder and the diffusion captioner of one config file.

    python scripts/train.py configs/tiny/soundscapes.yaml max_steps=20 output_dir=runs/tiny
    accelerate launch --num_processes 2 scripts/train.py configs/soundscapes.yaml

The same as `dac-diffusion train`. Any setting of the config may follow as key=value.
"""

import sys

from dac_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
