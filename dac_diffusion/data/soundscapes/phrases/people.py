"""Phrasings of sounds that people make."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun

PEOPLE: dict[str, EventPhrases] = {
    "sneezing": EventPhrases(
        clauses=(
            Clause("a person", "sneezes", "sneezing"),
            Clause("someone", "sneezes", "sneezing"),
            Clause("someone", "sneezes", "sneezing", "into a tissue"),
            Clause("an individual", "sneezes", "sneezing"),
            Clause("a sick person", "sneezes", "sneezing"),
            Clause("someone with a cold", "sneezes", "sneezing"),
        ),
        nouns=(
            Noun("sneeze", "sneezes"),
            Noun("human sneeze", "human sneezes"),
            Noun("sneeze from a person", "sneezes from a person"),
        ),
        countable=True,
        adverbs=("suddenly", "forcefully"),
    ),
    "coughing": EventPhrases(
        clauses=(
            Clause("a person", "coughs", "coughing"),
            Clause("someone", "coughs", "coughing"),
            Clause("an individual", "coughs", "coughing"),
            Clause("a sick person", "coughs", "coughing"),
            Clause("someone", "coughs", "coughing", "into their hand"),
            Clause("someone", "hacks and coughs", "hacking and coughing"),
        ),
        nouns=(
            Noun("cough", "coughs"),
            Noun("coughing of a person", article="the"),
            Noun("cough from a person", "coughs from a person"),
        ),
        adverbs=("hoarsely", "hard"),
    ),
    "crying_baby": EventPhrases(
        clauses=(
            Clause("a baby", "cries", "crying"),
            Clause("an infant", "cries", "crying"),
            Clause("a newborn", "cries", "crying"),
            Clause("a baby", "wails", "wailing"),
            Clause("an upset baby", "cries", "crying"),
            Clause("a baby", "sobs", "sobbing"),
            Clause("an infant", "wails", "wailing"),
        ),
        nouns=(
            Noun("crying baby"),
            Noun("crying of a baby", article="the"),
            Noun("cries of an infant", article="the"),
        ),
        continuous=True,
        adverbs=("continuously", "constantly"),
    ),
    "laughing": EventPhrases(
        clauses=(
            Clause("someone", "laughs", "laughing"),
            Clause("a person", "laughs", "laughing"),
            Clause("someone", "giggles", "giggling"),
            Clause("a person", "chuckles", "chuckling"),
            Clause("someone", "laughs", "laughing", "at a joke"),
            Clause("people", "laugh", "laughing", plural=True),
        ),
        nouns=(
            Noun("laughter", article=""),
            Noun("sound of laughter", article="the"),
            Noun("burst of laughter", "bursts of laughter"),
        ),
        adverbs=("heartily", "happily"),
    ),
    "snoring": EventPhrases(
        clauses=(
            Clause("a person", "snores", "snoring"),
            Clause("someone", "snores", "snoring"),
            Clause("a sleeping person", "snores", "snoring"),
            Clause("someone", "snores", "snoring", "in their sleep"),
            Clause("a sleeper", "snores", "snoring"),
            Clause("an individual", "snores", "snoring"),
        ),
        nouns=(
            Noun("snoring", article=""),
            Noun("heavy snoring", article=""),
            Noun("snoring of a person", article="the"),
            Noun("sound of snoring", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "deeply", "rhythmically"),
    ),
    "breathing": EventPhrases(
        clauses=(
            Clause("a person", "breathes", "breathing"),
            Clause("someone", "breathes", "breathing"),
            Clause("someone", "breathes in and out", "breathing in and out"),
            Clause("a person", "inhales and exhales", "inhaling and exhaling"),
            Clause("someone", "breathes", "breathing", "through their nose"),
            Clause("an individual", "breathes", "breathing"),
        ),
        nouns=(
            Noun("breathing", article=""),
            Noun("heavy breathing", article=""),
            Noun("breathing of a person", article="the"),
            Noun("breath of a person", article="the"),
        ),
        continuous=True,
        adverbs=("heavily", "deeply", "steadily"),
    ),
    "clapping": EventPhrases(
        clauses=(
            Clause("people", "clap", "clapping", plural=True),
            Clause("an audience", "claps", "clapping"),
            Clause("a crowd", "applauds", "applauding"),
            Clause("people", "applaud", "applauding", plural=True),
            Clause("hands", "clap", "clapping", plural=True),
            Clause("people", "clap their hands", "clapping their hands", plural=True),
            Clause("a crowd", "claps", "clapping"),
        ),
        nouns=(
            Noun("applause", article=""),
            Noun("clapping of hands", article="the"),
            Noun("round of applause"),
        ),
        continuous=True,
        adverbs=("continuously", "enthusiastically"),
    ),
    "footsteps": EventPhrases(
        clauses=(
            Clause("someone", "walks", "walking"),
            Clause("a person", "walks", "walking", "across a floor"),
            Clause("footsteps", "echo", "echoing", plural=True),
            Clause("footsteps", "fall", "falling", "on a hard floor", plural=True),
            Clause("someone", "walks around", "walking around"),
            Clause("a person", "walks", "walking", "on the ground"),
            Clause("footsteps", "tap", "tapping", "along a hallway", plural=True),
        ),
        nouns=(
            Noun("footsteps", article=""),
            Noun("footsteps of a person", article="the"),
            Noun("sound of footsteps", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "slowly"),
    ),
    "brushing_teeth": EventPhrases(
        clauses=(
            Clause("someone", "brushes their teeth", "brushing their teeth"),
            Clause("a person", "brushes their teeth", "brushing their teeth"),
            Clause("teeth", "are brushed", "being brushed", plural=True),
            Clause("a toothbrush", "scrubs", "scrubbing", "against teeth"),
            Clause("someone", "scrubs their teeth", "scrubbing their teeth"),
            Clause("a person", "uses a toothbrush", "using a toothbrush"),
        ),
        nouns=(
            Noun("brushing of teeth", article="the"),
            Noun("sound of a toothbrush", article="the"),
            Noun("tooth brushing", article=""),
        ),
        continuous=True,
        adverbs=("vigorously", "steadily"),
    ),
    "drinking_sipping": EventPhrases(
        clauses=(
            Clause("someone", "sips a drink", "sipping a drink"),
            Clause("a person", "drinks", "drinking"),
            Clause("someone", "drinks", "drinking", "from a glass"),
            Clause("a person", "slurps a drink", "slurping a drink"),
            Clause("someone", "sips and swallows", "sipping and swallowing"),
            Clause("a person", "sips", "sipping", "from a cup"),
            Clause("someone", "gulps a beverage", "gulping a beverage"),
        ),
        nouns=(
            Noun("sip of a drink", "sips of a drink"),
            Noun("sipping of a drink", article="the"),
            Noun("slurp of a drink", "slurps of a drink"),
        ),
        adverbs=("slowly", "noisily"),
    ),
    "whistling": EventPhrases(
        clauses=(
            Clause("a person", "whistles", "whistling"),
            Clause("someone", "whistles", "whistling"),
            Clause("someone", "whistles a tune", "whistling a tune"),
            Clause("a person", "whistles a melody", "whistling a melody"),
            Clause("an individual", "whistles", "whistling"),
            Clause("someone", "whistles", "whistling", "to themselves"),
        ),
        nouns=(
            Noun("human whistle", "human whistles"),
            Noun("whistling of a person", article="the"),
            Noun("whistle from a person", "whistles from a person"),
        ),
        adverbs=("casually", "cheerfully"),
    ),
    "heartbeat": EventPhrases(
        clauses=(
            Clause("a heart", "beats", "beating"),
            Clause("a human heart", "beats", "beating"),
            Clause("a heart", "thumps", "thumping"),
            Clause("a heartbeat", "pulses", "pulsing"),
            Clause("a heartbeat", "thuds", "thudding"),
            Clause("a heart", "beats", "beating", "inside a chest"),
        ),
        nouns=(
            Noun("heartbeat"),
            Noun("beating of a heart", article="the"),
            Noun("beating heart"),
            Noun("thump of a heartbeat", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "rhythmically"),
    ),
}
