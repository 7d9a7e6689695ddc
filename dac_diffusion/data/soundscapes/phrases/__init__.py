"""The phrase tables, split by family of sound: how people name each label of the soundscapes."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.animals import ANIMALS
from dac_diffusion.data.soundscapes.phrases.domestic import DOMESTIC
from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun
from dac_diffusion.data.soundscapes.phrases.machines import MACHINES
from dac_diffusion.data.soundscapes.phrases.nature import NATURE
from dac_diffusion.data.soundscapes.phrases.people import PEOPLE
from dac_diffusion.data.soundscapes.phrases.signals import SIGNALS

PHRASES: dict[str, EventPhrases] = {
    **ANIMALS,
    **NATURE,
    **PEOPLE,
    **DOMESTIC,
    **MACHINES,
    **SIGNALS,
}

__all__ = ["PHRASES", "Clause", "EventPhrases", "Noun"]
