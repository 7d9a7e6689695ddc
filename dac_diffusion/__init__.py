"""Several different captions for a sound recording, by diffusion over caption latents."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.captioner import DiffusionCaptioner
    from dac_diffusion.systems import load_captioner

__version__ = "0.1.0"
__all__ = ["AutoregressiveCaptioner", "DiffusionCaptioner", "__version__", "load_captioner"]


def __getattr__(name: str) -> Any:
    # On first use only: importing the captioner takes seconds, `dac-diffusion --help` must not.
    if name == "DiffusionCaptioner":
        from dac_diffusion.captioner import DiffusionCaptioner

        return DiffusionCaptioner
    if name == "AutoregressiveCaptioner":
        from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner

        return AutoregressiveCaptioner
    if name == "load_captioner":
        from dac_diffusion.systems import load_captioner

        return load_captioner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
