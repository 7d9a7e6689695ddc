"""Which seeds of randomness every generator here takes."""

from __future__ import annotations

from dac_diffusion.errors import ConfigError


def check_seed(seed: int) -> None:
    """Raise ConfigError for a seed that numpy (below 0) or torch (above) refuses."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed}: must be 0 or more, and below 2^63")
