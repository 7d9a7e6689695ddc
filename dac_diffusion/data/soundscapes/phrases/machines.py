"""Phrasings of vehicles, tools, bells and other sounds of the street."""

from __future__ import annotations

from dac_diffusion.data.soundscapes.phrases.forms import Clause, EventPhrases, Noun

MACHINES: dict[str, EventPhrases] = {
    "chainsaw": EventPhrases(
        clauses=(
            Clause("a chainsaw", "runs", "running"),
            Clause("a chainsaw", "revs", "revving"),
            Clause("a chainsaw", "buzzes", "buzzing"),
            Clause("a chainsaw", "cuts", "cutting", "through wood"),
            Clause("someone", "cuts wood", "cutting wood", "with a chainsaw"),
            Clause("a chainsaw", "roars", "roaring"),
        ),
        nouns=(
            Noun("chainsaw"),
            Noun("roar of a chainsaw", article="the"),
            Noun("buzzing chainsaw"),
        ),
        continuous=True,
        adverbs=("continuously", "noisily"),
    ),
    "hand_saw": EventPhrases(
        clauses=(
            Clause("someone", "saws", "sawing", "through wood"),
            Clause("a hand saw", "cuts wood", "cutting wood"),
            Clause("a person", "saws wood", "sawing wood", "by hand"),
            Clause("wood", "is sawed", "being sawed"),
            Clause("a saw", "scrapes back and forth", "scraping back and forth"),
            Clause("a person", "uses a hand saw", "using a hand saw"),
        ),
        nouns=(
            Noun("sawing of wood", article="the"),
            Noun("hand saw on wood"),
            Noun("scraping of a saw", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "rhythmically"),
    ),
    "helicopter": EventPhrases(
        clauses=(
            Clause("a helicopter", "flies", "flying"),
            Clause("a helicopter", "flies", "flying", "overhead"),
            Clause("a helicopter", "hovers", "hovering"),
            Clause("helicopter blades", "spin", "spinning", plural=True),
            Clause("a helicopter", "flies", "flying", "through the air"),
            Clause("helicopter rotors", "whir", "whirring", plural=True),
        ),
        nouns=(
            Noun("helicopter"),
            Noun("whirring of a helicopter", article="the"),
            Noun("chopping of helicopter blades", article="the"),
        ),
        continuous=True,
        adverbs=("steadily", "continuously"),
    ),
    "airplane": EventPhrases(
        clauses=(
            Clause("an airplane", "flies by", "flying by"),
            Clause("a plane", "flies", "flying", "overhead"),
            Clause("a jet", "passes", "passing", "overhead"),
            Clause("an airplane", "roars", "roaring", "through the sky"),
            Clause("a jet plane", "flies past", "flying past"),
            Clause("an aircraft", "flies", "flying", "overhead"),
        ),
        nouns=(
            Noun("passing airplane"),
            Noun("roar of a jet plane", article="the"),
            Noun("drone of an airplane", article="the"),
        ),
        continuous=True,
        adverbs=("steadily",),
    ),
    "engine": EventPhrases(
        clauses=(
            Clause("an engine", "runs", "running"),
            Clause("an engine", "idles", "idling"),
            Clause("a motor", "runs", "running"),
            Clause("a vehicle engine", "idles", "idling"),
            Clause("an engine", "rumbles", "rumbling"),
            Clause("a motor", "hums", "humming"),
            Clause("a car engine", "runs", "running"),
        ),
        nouns=(
            Noun("running engine"),
            Noun("rumble of an engine", article="the"),
            Noun("idling motor"),
        ),
        continuous=True,
        adverbs=("steadily", "continuously", "smoothly"),
    ),
    "train": EventPhrases(
        clauses=(
            Clause("a train", "passes by", "passing by"),
            Clause("a train", "rolls", "rolling", "along the tracks"),
            Clause("a train", "travels", "traveling", "on railroad tracks"),
            Clause("a locomotive", "chugs along", "chugging along"),
            Clause("a train", "rumbles past", "rumbling past"),
            Clause("a train", "clatters", "clattering", "along the rails"),
        ),
        nouns=(
            Noun("passing train"),
            Noun("rumble of a train", article="the"),
            Noun("train on the tracks"),
        ),
        continuous=True,
        adverbs=("steadily", "noisily"),
    ),
    "car_horn": EventPhrases(
        clauses=(
            Clause("a car horn", "honks", "honking"),
            Clause("a car", "honks its horn", "honking its horn"),
            Clause("a car horn", "blares", "blaring"),
            Clause("a driver", "honks a car horn", "honking a car horn"),
            Clause("a vehicle", "honks", "honking"),
            Clause("a car", "honks", "honking", "in traffic"),
            Clause("a car horn", "beeps", "beeping"),
        ),
        nouns=(
            Noun("car horn honk", "car horn honks"),
            Noun("honking of a car", article="the"),
            Noun("blast of a car horn", "blasts of a car horn"),
        ),
        adverbs=("impatiently",),
    ),
    "siren": EventPhrases(
        clauses=(
            Clause("a siren", "wails", "wailing"),
            Clause("a siren", "blares", "blaring"),
            Clause("an emergency siren", "sounds", "sounding"),
            Clause("a siren", "goes off", "going off"),
            Clause("an emergency vehicle", "sounds its siren", "sounding its siren"),
            Clause("a siren", "rises and falls", "rising and falling"),
        ),
        nouns=(
            Noun("wailing siren"),
            Noun("wail of a siren", article="the"),
            Noun("emergency siren"),
            Noun("siren"),
        ),
        continuous=True,
        adverbs=("continuously", "urgently"),
    ),
    "church_bells": EventPhrases(
        clauses=(
            Clause("church bells", "ring", "ringing", plural=True),
            Clause("a church bell", "tolls", "tolling"),
            Clause("church bells", "chime", "chiming", plural=True),
            Clause("a church bell", "rings", "ringing", "in a tower"),
            Clause("large church bells", "peal", "pealing", plural=True),
            Clause("bells", "toll", "tolling", "in a church", plural=True),
        ),
        nouns=(
            Noun("church bells", article=""),
            Noun("ringing of church bells", article="the"),
            Noun("tolling of a church bell", article="the"),
        ),
        continuous=True,
        adverbs=("slowly", "solemnly", "continuously"),
    ),
    "fireworks": EventPhrases(
        clauses=(
            Clause("fireworks", "explode", "exploding", plural=True),
            Clause("fireworks", "go off", "going off", plural=True),
            Clause("fireworks", "pop and crackle", "popping and crackling", plural=True),
            Clause("fireworks", "burst", "bursting", "in the sky", plural=True),
            Clause("fireworks", "boom", "booming", plural=True),
            Clause("firecrackers", "pop", "popping", plural=True),
        ),
        nouns=(
            Noun("fireworks", article=""),
            Noun("fireworks display"),
            Noun("popping of fireworks", article="the"),
            Noun("exploding fireworks", article=""),
        ),
        continuous=True,
        adverbs=("continuously",),
    ),
    "alarm_bell": EventPhrases(
        clauses=(
            Clause("an alarm bell", "rings", "ringing"),
            Clause("a fire alarm bell", "rings", "ringing"),
            Clause("an alarm bell", "clangs", "clanging"),
            Clause("an alarm bell", "goes off", "going off"),
            Clause("an alarm bell", "rings", "ringing", "in a building"),
            Clause("a metal alarm bell", "jangles", "jangling"),
        ),
        nouns=(
            Noun("alarm bell"),
            Noun("ringing of an alarm bell", article="the"),
            Noun("clanging alarm bell"),
        ),
        continuous=True,
        adverbs=("continuously", "urgently"),
    ),
}
