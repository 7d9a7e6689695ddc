import pytest

from dac_diffusion.text.repeats import collapse_repeats


@pytest.mark.parametrize(
    ("caption", "collapsed", "removed"),
    [
        ("a dog barks", "a dog barks", 0),
        ("a a dog barks barks barks", "a dog barks", 3),
        ("rain and rain", "rain and rain", 0),
        ("The the wind blows", "The wind blows", 1),
        ("", "", 0),
    ],
)
def test_runs_of_one_word_become_one(caption: str, collapsed: str, removed: int) -> None:
    assert collapse_repeats(caption) == (collapsed, removed)
