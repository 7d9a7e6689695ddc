"""The words of captions by kind; parts_of_speech.py says how they are used."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs in their base form. The first are also nouns that name a sound: whatever their form,
# something is heard.
SOUND_VERBS = _words("""
applaud baa babble backfire bang bark bash bawl beat beep belch bellow blare blast bleat bleep blip
boom bounce bray breathe bubble burble burp burst buzz cackle call caw chant chat chatter cheep
cheer chime chirp chirrup chuckle chug clack clang clank clap clash clatter click clink clip clomp
clop cluck clunk coo cough crack crackle crash creak crinkle croak crow crumble crumple crunch cry
ding dribble drip drone drop drum echo erupt exclaim explode fart fizz fizzle flap flush flutter
gargle gasp giggle groan growl grumble grunt gulp gurgle hiccup hiss holler honk hoot howl huff hum
jangle jingle knock laugh meow mew moan moo mumble murmur mutter narrate neigh oink pant patter peal
peep ping pitter plink plop pluck pop pound pulse purr quack quaver ramble rap rasp rattle resonate
rev reverberate ribbit ring roar rumble rustle scrape scratch scream screech scuff scuffle shatter
shout shriek shuffle sigh sing sip sizzle slam slap slosh slurp smack snap snarl sneeze snicker
sniff sniffle snip snore snort sob sound speak splash splat splatter splutter sputter squawk squeak
squeal squelch squish stomp strum stutter swish swoosh talk tap thrum thud thump thunder tick
ticktock tinkle tock toll toot trickle trill tumble twang tweet twitter vacuum vibrate vocalize wail
warble weep wheeze whimper whine whinny whir whirr whisper whistle whiz whoop whoosh woof yap yell
yelp yip yodel yowl zap zing
""")
# What the things and people in captions do besides; as nouns these name no sound (rocks, pace).
ACTION_VERBS = _words("""
accelerate accompany achieve act activate add adjust advance agitate alternate announce answer
appear approach argue arrive ascend ask attach attempt back barrel become begin bend bite blend blow
board bob boil brake break brew bring broadcast brush buff build bump burn bustle calm care carry
carve cascade catch cause change charge chase check chew chip choke chomp chop churn circle
circulate clean clear climb cling close coast collapse collect collide come communicate compete
complete contact contain continue converse cook count cover crank crawl create cross crush cut cycle
deal decelerate decrease deliver depart descend dial die dig diminish dip direct disappear discuss
disperse dissipate distort disturb dive do downshift drag drain draw drift drill drink drive drizzle
drown dry dump eat eject emanate emerge emit empty end engage enjoy enter entertain escalate escape
evacuate exhale exist exit express face fade fail fall fan feed feel fiddle fight file fill find
finish fire fit fix flick flip float flow fluctuate fly fold follow forage form frolic fry gain
gallop gather get give glide gnaw go grab grate graze greet grind grow gush gust hack hail hammer
handle hang happen have head hear heat heave help hit hold hop hover hurry hurtle idle ignite
imitate impact include increase indicate inhale intensify interact interrupt introduce iron jog join
jolt jostle jump keep kick kiss knead know land lap last launch lay lead leak leap leave let lick
lie lift light linger listen load lock look loop loosen lower maintain make manipulate march mash
merge mill mimic mix modulate mop mouth move mow need nibble occur ooze open operate oscillate
overlap overpower pace pack paddle paint parade park pass pause pave peck pedal peel penetrate
perform permeate persist pet pick pierce pile pitch place play plow plunge poke polish pour power
practice pray preach precede prepare present press pressurize print proceed process produce progress
project propel pull pulsate pump punch punctuate push put putter quiet quieten race rain raise rake
range reach read rebound recede receive reciprocate recite record recur reel release remain remove
repeat reply respond rest resume retract return reverse revolve rewind ride rinse rip ripple rise
roam rock roll rotate row rub ruffle run rush sand saw say scamper scan scatter scrabble screw
scribble scrub scrunch scurry seal search see sell send separate serve set sew shake sharpen shave
shift shoot shovel show shower shred shut sift signal simmer sit skate skid skim skip sleep slice
slide slip slither slow smash smoke smooth snag socialize sort spatter speed spend spill spin spit
spray spread sprinkle spurt squeeze squirt stack stamp stand staple start startle stay steam step
stick stir stop strain stream stretch strike stroke stroll struggle strut subside suck surge
surround swallow swarm sway swear sweep swell swerve swim swing swirl switch take taxi teach tear
tease tell test thrash throb throttle throw tie tighten tinker toggle touch tow trace trample
transfer transition transmit travel tread trigger trim trot trudge try tune turn twist type unfold
unlock unwind unwrap unzip urinate use utter vary wade wait wake walk wander want warm warn wash
watch wave wheel whip whirl whisk widen wipe work wrap write zip zoom
""")
# In the third person, these are hardly ever plural nouns.
FINITE_VERBS = _words("""
accelerate accompany announce approach argue arrive ascend ask become begin bring carry collide come
continue converse decelerate deliver depart descend diminish do eat eject emit enter exhale exist
fade fill flow follow get give go grow happen have hear hover imitate include increase inhale
intensify keep listen make move narrate occur operate oscillate pass perform play pour proceed
produce pull put reach remain reverberate run rush say scurry send shut sing sit slow speak start
stay stop subside take talk tell turn type use vary vibrate vocalize wait walk wipe write
""")
# These have no object, so that a noun phrase behind one is the subject of the next verb.
WITHOUT_OBJECT = _words("""
arrive bark bleat breathe burp buzz caw chat chatter chirp chuckle cluck converse coo cough croak
crow cry fade fall flow gallop giggle growl gurgle happen hiss howl hum idle laugh meow moo murmur
neigh occur oink pant quack roar rumble sizzle sneeze snore sob speak squawk talk trickle wail
whimper whine whir
""")
# The object of these may be a clause with a verb of its own, as in "making keys jingle".
WITH_CLAUSE = _words("feel have hear help let listen make say see watch")
PAST_FORMS = _words("""
ate became began blew broke came chose did drank drew drove fell flew froze gave grew knew ran rang
rode rose sang sank shook sped spoke swam threw took tore went woke wore wrote
""")
PARTICIPLES = _words("""
beaten begun bent bitten blown broken brought built burst caught chosen cut drawn driven drunk eaten
fallen fed felt flown found frozen given gone grown heard held hidden hit hung kept known laid led
left lit lost made met mown paid put read ridden risen run rung said sat sawn seen sent set shaken
shot shut slept slid spent split spoken spread spun stood struck sung swept swung taken taught
thought thrown told torn worn wound woven written
""")
# Words in -ing and -ed that are no forms of verbs.
NOT_PARTICIPLES = _words("""
anything bed building buildings ceiling ceilings during evening everything hundred indeed king
morning need nothing red seed shed sibling siblings sled something spring string strings
thing things weed wing wings
""")
# Nouns of what is heard that are no forms of the verbs above.
SOUND_NOUNS = _words("""
acceleration alarm ambiance ambience announcement applause audio bass beatbox bell birdcall birdsong
breath breeze cacophony chainsaw chord chorus clamor code commotion conversation crescendo
deceleration dialog dialogue din discussion downpour drumbeat drumroll effect explosion feedback
firecracker firework fireworks footfall footstep frequency friction gibberish gunfire gunshot
heartbeat helicopter hoofbeat horn hubbub instrument instrumental interference jackhammer jazz
language laughter melody monologue motion movement music narration noise note operation orchestra
outburst percussion racket radio rain raindrop rainfall rainstorm reverb reverberation rhythm riff
screeching sermon silence siren snowstorm sonar song soundtrack speech squall static storm surf
symphony synthesizer techno thunder thunderclap thunderstorm tone traffic tune uproar utterance
vibration vocal vocalization voice volley waterfall whirring wind windstorm word
""")
# Plurals that do not end in -s.
PLURALS = _words("cattle children feet geese kids men mice people police sheep teeth women")
# Before these, a word in -ing tells a kind: a sewing machine is a thing, not an event.
KINDS_OF_THINGS = _words("""
board boards compound device fan gum gun lot machine machines pan pool press room sail saw signal
signals space tank tool
""")
# Adjectives that their ending does not give away, and the words whose ending misleads.
ADJECTIVES = _words("""
adult bad big brief clear close constant deep dense different distant dry dull electric electronic
faint fast full gentle good great hard harsh heavy high hollow huge large light little long loud low
medium mid moderate muted near new old open other quick quiet random rapid rough same sharp short
shrill similar single slight slow small smooth soft steady strange strong sudden thick thin tiny wet
wide windy wooden young
""")
NO_ADJECTIVES = _words("""
animal arrival cable canal crystal fabric festival hospital individual interval journal manual
mechanic medal metal music pedal plastic recital signal table terminal traffic vegetable vehicle
""")
NO_ADVERBS = _words("assembly belly bubbly early family fly friendly jelly ugly")
# What a noun phrase of one thing, or of several, begins with.
SINGULAR_DETERMINERS = _words("a an another each every it its one other others this")
PLURAL_DETERMINERS = _words("""
all both couple different few five four lots many more most multiple numerous other several six some
ten these those three two various
""")
# By tag, see parts_of_speech.py.
FUNCTION_WORDS = {
    "d": _words("a an the"),
    "q": _words("""
        all another any both couple each eight eleven every few fifteen five four fourteen her his
        its lot lots many more most much multiple my nine no numerous one other others our seven
        several six some ten their these thirteen this those three twelve twenty two various your
    """),
    "o": _words("""
        anyone anything everyone everything he him himself i it itself me nobody none nothing
        she somebody someone something them themselves they us we you
    """),
    "x": _words("are could did do does had has have is should was were will would"),
    "y": _words("be been being can may might must"),
    "p": _words("""
        against alongside amid amidst among amongst at between despite during except for from in
        including into of onto toward towards upon via with without
    """),
    "P": _words("""
        about above across ahead alike along apart around aside atop away back backward backwards
        behind below beneath beside besides beyond by down forth forward indoors inside near off on
        opposite out outdoors outside over past through throughout together under underneath up
        within
    """),
    "c": _words("and but nor or plus yet"),
    "s": _words("""
        although as because if once since so though till unless until when whenever whereas while
        whilst
    """),
    "b": _words("after before"),
    "h": _words("then"),
    "f": _words("followed following"),
    "t": _words("how that what where which who whom whose why"),
    "T": _words("to"),
    "l": _words("like than"),
    "r": _words("""
        afterward afterwards again almost alone aloud also always close closer constantly even far
        farther fast faster finally first further hard here just later longer louder lower maybe
        nearby never not now often only perhaps quicker quieter quite rather shortly simultaneously
        slower softer sometimes somewhat soon still there too twice very well
    """),
}
# Sounds that are written twice on purpose, and words of degree.
DOUBLED_ON_PURPOSE = _words("""
baa bah bang beep boom buzz choo chug clang click clip clop coo ding dong go ha knock meow moo oink
on pop pow quack ring tap tick tock very woof
""")
# With one of these, the same event is another one: "then another dog barks".
ANEW = _words("again another different more other others same second third")
# What even verbs without an object may be followed by: "the whole time", "a melody".
SPANS_AND_SONGS = _words("""
bit couple entire few full half language little long lot melody message moment monologue number
phrase response second seconds short song speech third time times tune way whole
""")
