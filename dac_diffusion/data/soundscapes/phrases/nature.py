"""Phrasings of weather, water and fire."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun

NATURE: dict[str, EventPhrases] = {
    "rain": EventPhrases(
        clauses=(
            Clause("rain", "falls", "falling"),
            Clause("rain", "pours down", "pouring down"),
            Clause("rain", "patters", "pattering", "on a roof"),
            Clause("rain", "falls", "falling", "on the ground"),
            Clause("the rain", "comes down", "coming down"),
            Clause("raindrops", "fall", "falling", plural=True),
        ),
        nouns=(
            Noun("sound of rain", article="the"),
            Noun("falling rain", article=""),
            Noun("rainfall", article=""),
            Noun("patter of rain", article="the"),
        ),
        continuous=True,
        ambient=True,
        adverbs=("steadily", "continuously", "heavily"),
    ),
    "wind": EventPhrases(
        clauses=(
            Clause("wind", "blows", "blowing"),
            Clause("the wind", "howls", "howling"),
            Clause("a strong wind", "blows", "blowing"),
            Clause("wind", "blows", "blowing", "through the trees"),
            Clause("the wind", "gusts", "gusting"),
            Clause("wind", "rushes by", "rushing by"),
            Clause("gusts of wind", "blow", "blowing", plural=True),
        ),
        nouns=(
            Noun("sound of wind", article="the"),
            Noun("howling wind", article=""),
            Noun("blowing of the wind", article="the"),
        ),
        continuous=True,
        ambient=True,
        adverbs=("steadily", "continuously", "hard"),
    ),
    "sea_waves": EventPhrases(
        clauses=(
            Clause("waves", "crash", "crashing", plural=True),
            Clause("ocean waves", "crash", "crashing", "on the shore", plural=True),
            Clause("waves", "break", "breaking", "on a beach", plural=True),
            Clause("sea waves", "roll in", "rolling in", plural=True),
            Clause("waves", "wash", "washing", "onto the shore", plural=True),
            Clause("the sea", "rushes", "rushing", "onto a beach"),
        ),
        nouns=(
            Noun("ocean waves", article=""),
            Noun("crashing waves", article=""),
            Noun("sound of the sea", article="the"),
            Noun("crashing of the surf", article="the"),
        ),
        continuous=True,
        ambient=True,
        adverbs=("steadily", "continuously", "rhythmically"),
    ),
    "thunderstorm": EventPhrases(
        clauses=(
            Clause("thunder", "rumbles", "rumbling"),
            Clause("thunder", "roars", "roaring"),
            Clause("thunder", "booms", "booming"),
            Clause("thunder", "rolls", "rolling", "across the sky"),
            Clause("a thunderstorm", "rumbles", "rumbling"),
            Clause("thunder", "cracks and rumbles", "cracking and rumbling"),
        ),
        nouns=(
            Noun("rumble of thunder", article="the"),
            Noun("rolling thunder", article=""),
            Noun("thunder", article=""),
            Noun("booming thunder", article=""),
        ),
        continuous=True,
        ambient=True,
        adverbs=("deeply", "ominously"),
    ),
    "crackling_fire": EventPhrases(
        clauses=(
            Clause("a fire", "crackles", "crackling"),
            Clause("a fire", "crackles and pops", "crackling and popping"),
            Clause("a campfire", "crackles", "crackling"),
            Clause("flames", "crackle", "crackling", plural=True),
            Clause("a wood fire", "burns", "burning"),
            Clause("a fire", "burns and crackles", "burning and crackling"),
            Clause("wood", "crackles", "crackling", "in a fire"),
        ),
        nouns=(
            Noun("crackling fire"),
            Noun("crackling of a fire", article="the"),
            Noun("crackle of flames", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "continuously", "softly"),
    ),
    "water_drops": EventPhrases(
        clauses=(
            Clause("water", "drips", "dripping"),
            Clause("water", "drips", "dripping", "from a faucet"),
            Clause("a faucet", "drips", "dripping"),
            Clause("a tap", "drips", "dripping"),
            Clause("water", "drips", "dripping", "into a sink"),
            Clause("drops of water", "fall", "falling", plural=True),
        ),
        nouns=(
            Noun("water drop", "water drops"),
            Noun("drip of water", "drips of water"),
            Noun("dripping of water", article="the"),
            Noun("dripping water", article=""),
        ),
        adverbs=("slowly",),
    ),
    "pouring_water": EventPhrases(
        clauses=(
            Clause("water", "pours", "pouring"),
            Clause("water", "is poured", "being poured", "into a glass"),
            Clause("someone", "pours water", "pouring water"),
            Clause("a person", "pours water", "pouring water", "into a cup"),
            Clause("water", "pours", "pouring", "into a container"),
            Clause("liquid", "is poured", "being poured", "from a bottle"),
        ),
        nouns=(
            Noun("pouring water", article=""),
            Noun("pouring of water", article="the"),
            Noun("pouring of a liquid", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "slowly"),
    ),
    "bubbling": EventPhrases(
        clauses=(
            Clause("water", "bubbles", "bubbling"),
            Clause("liquid", "bubbles", "bubbling"),
            Clause("water", "bubbles and gurgles", "bubbling and gurgling"),
            Clause("a liquid", "bubbles", "bubbling", "in a pot"),
            Clause("bubbles", "rise", "rising", "through water", plural=True),
            Clause("boiling water", "bubbles", "bubbling"),
        ),
        nouns=(
            Noun("bubbling water", article=""),
            Noun("bubbling of liquid", article="the"),
            Noun("bubbling liquid", article=""),
        ),
        continuous=True,
        adverbs=("steadily", "continuously", "gently"),
    ),
}
