"""The random generator of each window of audio.

Its seed comes from the user's seed and from the window itself. Were it the user's seed alone, all
recordings would be captioned from one draw of noise: captions of different recordings would be
alike in their phrasing, and every average over recordings would hang on that one draw.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

PARTS = 64


def window_generator(seed: int, waveform: np.ndarray) -> torch.Generator:
    """A generator that depends on the seed and the sound (T,), whatever it is called or beside."""
    content = f"{seed} {len(waveform)} ".encode() + louder_than_before(waveform).tobytes()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") % 2**63)


def generator_of_round(seed: int, number: int) -> torch.Generator:
    """A generator for the `number`th round (from 0) of drawing with a window's seed."""
    return torch.Generator().manual_seed((seed + number) % 2**63)


def louder_than_before(waveform: np.ndarray) -> np.ndarray:
    """For 64 parts of equal length, whether each is louder than the one before (63 bools).

    Unlike a hash of the samples, this does not change with the last bit of a decoder or resampler.
    """
    edges = np.linspace(0, len(waveform), PARTS + 1).astype(np.int64)
    total = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])  # (T + 1,)
    energies = np.diff(total[edges])  # (PARTS,)
    return energies[1:] > energies[:-1]
