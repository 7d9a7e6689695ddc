from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from dac_diffusion.configuration import (
    config_from_dict,
    config_to_dict,
    load_config,
    save_config,
)
from dac_diffusion.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    width: int = 8
    kind: Literal["plain", "gated"] = "plain"


@dataclass(frozen=True)
class Loop:
    max_steps: int
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.98)
    mixed_precision: Literal["no", "bf16"] = "bf16"
    max_minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1, got {self.max_steps}")


@dataclass(frozen=True)
class Config:
    loop: Loop = Loop(max_steps=10, learning_rate=0.5)
    name: str = "tiny"
    folder: Path = Path("data")
    compile: bool = False
    words: list[str] = field(default_factory=list)
    sizes: tuple[int, ...] = (1, 2)
    weights: dict[str, float] = field(default_factory=lambda: {"mse": 1.0})
    layers: tuple[Layer, ...] = (Layer(),)
    optional: Layer | None = None
    anything: Any = None
    seed: int = 1


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def test_no_file_and_an_empty_file_are_the_defaults(write: Write) -> None:
    assert load_config(Config, None) == Config()
    assert load_config(Config, write("# nothing\n")) == Config()


def test_a_file_sets_fields_and_keeps_the_outer_class_s_defaults(write: Write) -> None:
    path = write(
        """
loop: {max_steps: 1e5, betas: [0.5, 1], mixed_precision: no, max_minutes: 3}
name: "12"
folder: some/where
compile: true
words: [yes, 2024-01-01]
sizes: [3]
weights: {cross_entropy: 2}
layers: [{width: 4, kind: gated}, {}]
optional: {width: 2}
anything: [1, {a: b}]
"""
    )
    config = load_config(Config, path)
    assert config == Config(
        Loop(100_000, 0.5, (0.5, 1.0), "no", 3.0), "12", Path("some/where"), True,
        ["yes", "2024-01-01"], (3,), {"mse": 1.0, "cross_entropy": 2.0},
        (Layer(4, "gated"), Layer()), Layer(2), [1, {"a": "b"}],
    )  # fmt: skip
    assert isinstance(config.loop.max_steps, int)
    assert isinstance(config.loop.betas[1], float)


def test_overrides_come_last_and_short_names_find_their_place(write: Write) -> None:
    path = write("loop: {max_steps: 5}\n")
    overrides = [
        "loop.max_steps=6", "max_steps=7", "learning_rate=1e-3", "seed=4", "loop.seed=5",
        "weights.mse=2", "sizes=[5, 6]", "name=a=b", "optional.kind=gated", "max_minutes=",
    ]  # fmt: skip
    config = load_config(Config, path, overrides)
    assert config.loop == Loop(7, 1e-3, seed=5)
    assert config.seed == 4
    assert config.weights == {"mse": 2.0}
    assert config.sizes == (5, 6)
    assert config.name == "a=b"
    assert config.optional == Layer(kind="gated")


def test_extends_is_relative_and_chained(write: Write, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write("name: base\nsizes: [9]\nloop: {max_steps: 3, seed: 3}\n", "base/first.yaml")
    write("extends: first.yaml\nloop: {seed: 4}\nname: second\n", "base/second.yaml")
    path = write("extends: base/second.yaml\nname: third\n")
    config = load_config(Config, path)
    assert (config.name, config.sizes) == ("third", (9,))
    assert (config.loop.max_steps, config.loop.seed) == (3, 4)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    config = Config(
        Loop(3, 1e-5, mixed_precision="no"), "no", Path("a b"), words=["é", "null", "1"],
        optional=Layer(3, "gated"), weights={"x": float("inf")},
    )  # fmt: skip
    save_config(config, tmp_path / "saved.yaml")
    again = load_config(Config, tmp_path / "saved.yaml")
    assert again == Config(**{**vars(config), "weights": {"mse": 1.0, "x": float("inf")}})
    assert config_from_dict(Config, config_to_dict(config), "here").loop == config.loop


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nme: x", "unknown key 'nme'; the nearest known key is 'name'"),
        ("loop: {max_step: 3}", "'loop.max_step'; the nearest known key is 'loop.max_steps'"),
        ("learning_rate: 3", "'learning_rate'; the nearest known key is 'loop.learning_rate'"),
        ("loop: {folder: x}", "'loop.folder'; the nearest known key is 'folder'"),
        ("1: x", "unknown key '1'"),
        ("compile: yes", "'compile' expects true or false, got 'yes'"),
        ("compile: 1", "'compile' expects true or false, got 1"),
        ("name: 3", "'name' expects text, got 3"),
        ("name:", "'name' expects text, got nothing"),
        ("seed: true", "'seed' expects a whole number, got True"),
        ("seed: 1.5", "'seed' expects a whole number, got 1.5"),
        ("seed: .inf", "'seed' expects a whole number, got inf"),
        ("loop: {learning_rate: fast}", "'loop.learning_rate' expects a number, got 'fast'"),
        ("loop: {max_minutes: x}", "'loop.max_minutes' expects a number or nothing, got 'x'"),
        ("loop: {mixed_precision: bf6}", "one of no, bf16, got 'bf6'; did you mean bf16?"),
        ("loop: {mixed_precision: true}", "'loop.mixed_precision' expects one of no, bf16"),
        ("loop: {betas: [1]}", "expects a list of 2 (a number, a number), got [1]"),
        ("loop: {betas: 1}", "'loop.betas' expects a list of 2"),
        ("loop: 3", "loop expects a group of keys such as max_steps, got 3"),
        ("loop:", "loop expects a group of keys such as max_steps, got nothing"),
        ("words: [a, 3]", "'words[1]' expects text, got 3"),
        ("words: abc", "'words' expects a list (each item text), got 'abc'"),
        ("weights: {mse: a}", "'weights.mse' expects a number, got 'a'"),
        ("weights: 3", "'weights' expects a group of 'name: value' (each value a number)"),
        ("layers: [{width: x}]", "'layers[0].width' expects a whole number, got 'x'"),
        ("layers: [{wdth: 1}]", "'layers[0].wdth'; the nearest known key is 'layers[0].width'"),
        ("layers: [3]", "layers[0] expects a group of keys such as width, got 3"),
        ("optional: 3", "optional expects a group of keys such as width, got 3"),
        ("loop: {max_steps: 0}", "loop.max_steps must be at least 1, got 0"),
        ("- a", "expected 'key: value' lines, got ['a']"),
        ("name: a\nseed: 1\nname: b", "not valid YAML in line 3: the key 'name' is there twice"),
        ("name: [a", "not valid YAML in line 1"),
        ("name: !!python/object:os.system x", "not valid YAML in line 1"),
        ("extends: 3", "'extends' expects the name of a file, got 3"),
        ("extends: gone.yaml", "gone.yaml: there is no such file (named by 'extends' in"),
        ("extends: config.yaml", "'extends' leads back to this file"),
    ],
)
def test_a_wrong_file_is_one_line_with_the_file_the_key_and_the_way_out(
    write: Write, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(Config, write(text))
    message = str(error.value)
    assert expected in message
    assert ".yaml: " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nme=x", "override 'nme=x': unknown key 'nme'; the nearest known key is 'name'"),
        ("max_stepz=3", "the nearest known key is 'loop.max_steps'"),
        ("loop.max_steps=many", "'loop.max_steps' expects a whole number, got 'many'"),
        ("max_steps=many", "override 'max_steps=many': 'loop.max_steps' expects a whole number"),
        ("name.first=x", "'name' expects text, got {'first': 'x'}"),
        ("width", "override 'width': write it as key=value"),
        ("=3", "write it as key=value"),
        ("words=[a", "override 'words=[a': not valid YAML in line 1"),
        ("--seed=3", "unknown key '--seed'; the nearest known key is 'seed'"),
    ],
)
def test_a_wrong_override_is_named(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(Config, None, [override])
    assert expected in str(error.value)


def test_a_short_name_that_fits_twice_is_asked_for_in_full() -> None:
    @dataclass(frozen=True)
    class Two:
        first: Layer = Layer()
        second: Layer = Layer()

    with pytest.raises(ConfigError, match=r"write one of first\.width, second\.width"):
        load_config(Two, None, ["width=3"])


def test_a_missing_key_is_named(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"'max_steps' is missing \(expected a whole number\)"):
        load_config(Loop, write("seed: 1"))
    with pytest.raises(ConfigError, match=r"^results.json: the key 'max_steps' is missing"):
        config_from_dict(Loop, {}, "results.json")


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConfigError, match=r"x\.yaml: (there is no such file|cannot be read)"):
        load_config(Config, path)
