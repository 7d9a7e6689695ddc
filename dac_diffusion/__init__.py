"""Several different captions for a sound recording, by diffusion over caption latents."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dac_diffusion.captioner import DiffusionCaptioner

__version__ = "0.1.0"
__all__ = ["DiffusionCaptioner", "__version__"]


def __getattr__(name: str) -> Any:
    # On first use only: importing the captioner takes seconds, `dac-diffusion --help` must not.
    if name == "DiffusionCaptioner":
        from dac_diffusion.captioner import DiffusionCaptioner

        return DiffusionCaptioner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
