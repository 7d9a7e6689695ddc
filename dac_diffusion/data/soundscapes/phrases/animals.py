"""Phrasings of animal sounds."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun

ANIMALS: dict[str, EventPhrases] = {
    "dog": EventPhrases(
        clauses=(
            Clause("a dog", "barks", "barking"),
            Clause("a large dog", "barks", "barking"),
            Clause("a dog", "woofs", "woofing"),
            Clause("an excited dog", "barks", "barking"),
            Clause("a dog", "barks", "barking", "at something"),
            Clause("a hound", "barks", "barking"),
        ),
        nouns=(
            Noun("dog bark", "dog barks"),
            Noun("barking of a dog", article="the"),
            Noun("bark from a dog", "barks from a dog"),
        ),
        adverbs=("excitedly", "sharply"),
    ),
    "cat": EventPhrases(
        clauses=(
            Clause("a cat", "meows", "meowing"),
            Clause("a kitten", "meows", "meowing"),
            Clause("a house cat", "meows", "meowing"),
            Clause("a hungry cat", "mews", "mewing"),
            Clause("a cat", "mews", "mewing"),
            Clause("a cat", "yowls", "yowling"),
        ),
        nouns=(
            Noun("cat meow", "cat meows"),
            Noun("meowing of a cat", article="the"),
            Noun("meow from a cat", "meows from a cat"),
        ),
        countable=True,
        adverbs=("plaintively", "softly"),
    ),
    "cow": EventPhrases(
        clauses=(
            Clause("a cow", "moos", "mooing"),
            Clause("a cow", "bellows", "bellowing"),
            Clause("a cow", "moos", "mooing", "in a field"),
            Clause("a farm cow", "moos", "mooing"),
            Clause("a cow", "lows", "lowing", "in a pasture"),
            Clause("cattle", "moo", "mooing", plural=True),
        ),
        nouns=(
            Noun("cow moo", "cow moos"),
            Noun("mooing of a cow", article="the"),
            Noun("moo from a cow", "moos from a cow"),
        ),
        countable=True,
        adverbs=("deeply",),
    ),
    "rooster": EventPhrases(
        clauses=(
            Clause("a rooster", "crows", "crowing"),
            Clause("a rooster", "calls out", "calling out"),
            Clause("a rooster", "crows", "crowing", "at dawn"),
            Clause("a farm rooster", "crows", "crowing"),
            Clause("a cockerel", "crows", "crowing"),
            Clause("a rooster", "crows", "crowing", "on a farm"),
        ),
        nouns=(
            Noun("rooster crow", "rooster crows"),
            Noun("rooster call", "rooster calls"),
            Noun("crowing of a rooster", article="the"),
        ),
        adverbs=("proudly",),
    ),
    "hen": EventPhrases(
        clauses=(
            Clause("a hen", "clucks", "clucking"),
            Clause("a chicken", "clucks", "clucking"),
            Clause("a hen", "cackles", "cackling"),
            Clause("a chicken", "clucks", "clucking", "in a coop"),
            Clause("a hen", "clucks and squawks", "clucking and squawking"),
            Clause("chickens", "cluck", "clucking", plural=True),
        ),
        nouns=(
            Noun("clucking of a hen", article="the"),
            Noun("chicken cluck", "chicken clucks"),
            Noun("cluck from a hen", "clucks from a hen"),
        ),
        adverbs=("busily", "softly"),
    ),
    "crow": EventPhrases(
        clauses=(
            Clause("a crow", "caws", "cawing"),
            Clause("a crow", "calls out", "calling out"),
            Clause("a raven", "caws", "cawing"),
            Clause("a crow", "caws", "cawing", "in a tree"),
            Clause("a crow", "squawks", "squawking"),
            Clause("a black crow", "caws", "cawing"),
        ),
        nouns=(
            Noun("crow call", "crow calls"),
            Noun("cawing of a crow", article="the"),
            Noun("caw from a crow", "caws from a crow"),
        ),
        adverbs=("harshly", "hoarsely"),
    ),
    "chirping_birds": EventPhrases(
        clauses=(
            Clause("birds", "chirp", "chirping", plural=True),
            Clause("birds", "sing", "singing", plural=True),
            Clause("small birds", "twitter", "twittering", plural=True),
            Clause("a bird", "chirps", "chirping"),
            Clause("birds", "tweet and chirp", "tweeting and chirping", plural=True),
            Clause("songbirds", "sing", "singing", plural=True),
            Clause("birds", "chirp", "chirping", "in the trees", plural=True),
        ),
        nouns=(
            Noun("chirping of birds", article="the"),
            Noun("chirping birds", article=""),
            Noun("bird song", article=""),
        ),
        continuous=True,
        adverbs=("cheerfully", "continuously", "happily"),
    ),
    "frog": EventPhrases(
        clauses=(
            Clause("a frog", "croaks", "croaking"),
            Clause("a frog", "ribbits", "ribbiting"),
            Clause("a toad", "croaks", "croaking"),
            Clause("a frog", "croaks", "croaking", "in a pond"),
            Clause("a bullfrog", "croaks", "croaking"),
            Clause("a frog", "calls", "calling", "by the water"),
        ),
        nouns=(
            Noun("frog croak", "frog croaks"),
            Noun("croaking of a frog", article="the"),
            Noun("croak from a frog", "croaks from a frog"),
        ),
        adverbs=("deeply", "hoarsely"),
    ),
    "pig": EventPhrases(
        clauses=(
            Clause("a pig", "oinks", "oinking"),
            Clause("a pig", "grunts", "grunting"),
            Clause("a pig", "snorts", "snorting"),
            Clause("a hog", "grunts", "grunting"),
            Clause("a pig", "oinks and snorts", "oinking and snorting"),
            Clause("a pig", "grunts", "grunting", "in a pen"),
        ),
        nouns=(
            Noun("pig grunt", "pig grunts"),
            Noun("oinking of a pig", article="the"),
            Noun("oink from a pig", "oinks from a pig"),
        ),
        adverbs=("noisily",),
    ),
    "sheep": EventPhrases(
        clauses=(
            Clause("a sheep", "bleats", "bleating"),
            Clause("a sheep", "baas", "baaing"),
            Clause("a lamb", "bleats", "bleating"),
            Clause("a sheep", "bleats", "bleating", "in a field"),
            Clause("a sheep", "calls out", "calling out"),
            Clause("a farm sheep", "bleats", "bleating"),
        ),
        nouns=(
            Noun("sheep bleat", "sheep bleats"),
            Noun("bleating of a sheep", article="the"),
            Noun("baa from a sheep", "baas from a sheep"),
        ),
        adverbs=("plaintively",),
    ),
    "insects": EventPhrases(
        clauses=(
            Clause("insects", "buzz", "buzzing", plural=True),
            Clause("an insect", "buzzes", "buzzing"),
            Clause("a fly", "buzzes around", "buzzing around"),
            Clause("bugs", "buzz", "buzzing", plural=True),
            Clause("insects", "buzz", "buzzing", "in the air", plural=True),
            Clause("a bee", "buzzes", "buzzing"),
            Clause("flying insects", "hum and buzz", "humming and buzzing", plural=True),
        ),
        nouns=(
            Noun("buzzing of insects", article="the"),
            Noun("buzzing insects", article=""),
            Noun("buzz of an insect", article="the"),
        ),
        continuous=True,
        adverbs=("continuously", "constantly"),
    ),
    "crickets": EventPhrases(
        clauses=(
            Clause("crickets", "chirp", "chirping", plural=True),
            Clause("a cricket", "chirps", "chirping"),
            Clause("crickets", "sing", "singing", plural=True),
            Clause("crickets", "chirp", "chirping", "at night", plural=True),
            Clause("crickets", "chirp", "chirping", "in the grass", plural=True),
            Clause("field crickets", "trill", "trilling", plural=True),
        ),
        nouns=(
            Noun("chirping of crickets", article="the"),
            Noun("chirping crickets", article=""),
            Noun("cricket song", article=""),
        ),
        continuous=True,
        adverbs=("steadily", "continuously", "rhythmically"),
    ),
}
