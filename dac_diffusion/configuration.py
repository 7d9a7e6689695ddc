"""Typed configuration: YAML files and `key=value` overrides on top of frozen dataclasses.

A configuration is a (nested) frozen dataclass that stands beside the class it configures; its
defaults are the defaults. A YAML file sets some of its fields and may begin with
`extends: other.yaml` (relative to the file), so that an ablation is the few lines that differ.
Every mapping, of a nested dataclass or of a dict field, is merged key by key; every other value,
lists included, is replaced. Overrides come last: `loop.max_steps=20`, or in short `max_steps=20`
where only one nested field has that name.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_write
from dac_diffusion.yaml_reading import parse_yaml

T = TypeVar("T")


def load_config(cls: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Read a dataclass from a YAML file (None: its defaults) and apply `key=value` overrides.

    Raises ConfigError, which names the file or the override, the key and what was expected.
    """
    values: dict[str, Any] = {}
    for mapping, where in [*_file_layers(path), *(_override(cls, text) for text in overrides)]:
        _merge(values, _check(cls, mapping, where))
    return _build(cls, values, str(path) if path is not None else "the configuration")


def config_from_dict(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Build a dataclass from a plain mapping, for instance one read from JSON; `where` names it.

    Raises ConfigError for an unknown or missing key and for a value of the wrong type.
    """
    return _build(cls, _check(cls, mapping, where), where)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Turn a dataclass into plain values that JSON and YAML can hold (tuples become lists)."""
    plain: dict[str, Any] = _plain(config)
    return plain


def save_config(config: Any, path: str | Path) -> None:
    """Write every field of a dataclass as YAML that `load_config` reads back to an equal value."""
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in _settings(type(value))}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# --- Layers: the files from the most basic to the given one, then the overrides ---


def _file_layers(path: str | Path | None) -> list[tuple[dict[str, Any], str]]:
    layers: list[tuple[dict[str, Any], str]] = []
    seen: list[Path] = []
    while path is not None:
        file = Path(path)
        if file.resolve() in seen:
            raise ConfigError(f"{file}: 'extends' leads back to this file; remove one of the links")
        seen.append(file.resolve())
        mapping = _read_mapping(file, f" (named by 'extends' in {layers[-1][1]})" if layers else "")
        parent = mapping.pop("extends", None)
        if parent is not None and not isinstance(parent, str):
            raise ConfigError(f"{file}: 'extends' expects the name of a file, got {_show(parent)}")
        layers.append((mapping, str(file)))
        path = file.parent / parent if parent is not None else None
    return layers[::-1]


def _read_mapping(path: Path, hint: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}){hint}; give a YAML file") from error
    content = parse_yaml(text, str(path))
    if content is None:  # an empty file
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, got {_show(content)}")
    return content


def _override(cls: type, text: str) -> tuple[dict[str, Any], str]:
    where = f"override '{text}'"
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"{where}: write it as key=value, for instance seed=1")
    value = parse_yaml(raw, where)
    names = [field.name for field in _settings(cls)]
    if "." not in key and key not in names:
        longer = [known for known in _known_keys(cls) if known.endswith(f".{key}")]
        if len(longer) > 1:
            raise ConfigError(f"{where}: several keys end so; write one of {', '.join(longer)}")
        key = longer[0] if longer else key
    for part in reversed(key.split(".")):
        value = {part: value}
    return value, where


def _merge(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


# --- From plain values to the dataclass ---


def _settings(cls: Any) -> list[Field[Any]]:
    return [field for field in fields(cls) if field.init]


def _nested_class(annotation: Any) -> Any:
    """Return the dataclass behind `Nested` or `Nested | None`, else None."""
    options = get_args(annotation) if _is_union(annotation) else (annotation,)
    return next(
        (option for option in options if isinstance(option, type) and is_dataclass(option)), None
    )


def _known_keys(cls: Any, prefix: str = "") -> list[str]:
    keys = []
    hints = get_type_hints(cls)
    for field in _settings(cls):
        keys.append(prefix + field.name)
        nested = _nested_class(hints[field.name])
        if nested is not None:
            keys += _known_keys(nested, f"{prefix}{field.name}.")
    return keys


def _check(
    cls: Any, mapping: Any, where: str, prefix: str = "", root: Any = None
) -> dict[str, Any]:
    """Check the names and types of one layer; nested dataclasses stay dicts, to be merged."""
    root = root or cls
    if not isinstance(mapping, Mapping):
        name = prefix.rstrip(".") or "the top level"
        raise ConfigError(
            f"{where}: {name} expects a group of keys such as {_settings(cls)[0].name}, "
            f"got {_show(mapping)}"
        )
    hints = get_type_hints(cls)
    names = [field.name for field in _settings(cls)]
    checked: dict[str, Any] = {}
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if name not in names:
            near = get_close_matches(str(name), names, n=1)
            nearest = prefix + near[0] if near else _nearest(key, _known_keys(root))
            raise ConfigError(f"{where}: unknown key '{key}'; the nearest known key is '{nearest}'")
        nested = _nested_class(hints[name])
        if nested is not None and not (value is None and _is_union(hints[name])):
            checked[name] = _check(nested, value, where, f"{key}.", root)
        else:
            checked[name] = _convert(hints[name], value, key, where)
    return checked


def _nearest(key: str, known: list[str]) -> str:
    # A key put into the wrong group is nearest to the one with the same last name.
    last = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    return get_close_matches(key, last or known, n=1, cutoff=0.0)[0]


def _build(
    cls: Any, values: Mapping[str, Any], where: str, prefix: str = "", base: Any = None
) -> Any:
    """Construct the dataclass; `base` is the outer class's default instance, if it has one."""
    hints = get_type_hints(cls)
    given = dict(values)
    for field in _settings(cls):
        nested, key = _nested_class(hints[field.name]), f"{prefix}{field.name}"
        if base is not None:
            default = getattr(base, field.name)
        elif field.default_factory is not MISSING:
            default = field.default_factory()
        else:
            default = field.default
        if default is MISSING and field.name not in given:
            if nested is None or _is_union(hints[field.name]):
                expected = _describe(hints[field.name])
                raise ConfigError(f"{where}: the key '{key}' is missing (expected {expected})")
            given[field.name] = {}
        elif nested is None and isinstance(default, dict) and field.name in given:
            given[field.name] = {**default, **given[field.name]}
        if nested is not None and isinstance(given.get(field.name), dict):
            inner_base = default if isinstance(default, nested) else None
            given[field.name] = _build(nested, given[field.name], where, f"{key}.", inner_base)
    try:
        return replace(base, **given) if base is not None else cls(**given)
    except (ConfigError, ValueError) as error:  # a check in the dataclass's __post_init__
        raise ConfigError(f"{where}: {prefix}{error}") from error


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _convert(annotation: Any, value: Any, key: str, where: str) -> Any:
    """Return the value as the annotated type; raises ConfigError when it is of another one."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if _is_union(annotation):
        for option in arguments:
            try:
                return _convert(option, value, key, where)
            except ConfigError:
                continue
    elif origin is Literal:
        if any(value == option and type(value) is type(option) for option in arguments):
            return value
        near = get_close_matches(str(value), [str(option) for option in arguments], n=1)
        raise _wrong(annotation, value, key, where, f"; did you mean {near[0]}?" if near else "")
    elif isinstance(annotation, type) and is_dataclass(annotation):  # inside a list or a dict
        return _build(annotation, _check(annotation, value, where, f"{key}."), where, f"{key}.")
    elif origin in (list, tuple, Sequence) and isinstance(value, (list, tuple)):
        fixed = origin is tuple and arguments[-1] is not Ellipsis
        if fixed and len(value) != len(arguments):
            raise _wrong(annotation, value, key, where)
        kinds = arguments if fixed else (arguments[0],) * len(value)
        items = [
            _convert(k, v, f"{key}[{i}]", where)
            for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        ]
        return items if origin is list else tuple(items)
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return {
            _convert(arguments[0], name, key, where): _convert(
                arguments[1], v, f"{key}.{name}", where
            )
            for name, v in value.items()
        }
    elif annotation is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif isinstance(value, bool) or isinstance(annotation, types.GenericAlias):
        if annotation is bool:
            return value
    elif annotation is float and isinstance(value, (int, float)):
        return float(value)
    elif annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e5 steps
    elif value is None and annotation in (None, type(None)):
        return None
    elif isinstance(annotation, type) and isinstance(value, annotation):
        return value
    raise _wrong(annotation, value, key, where)


def _wrong(annotation: Any, value: Any, key: str, where: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"{where}: '{key}' expects {_describe(annotation)}, got {_show(value)}{hint}"
    )


def _show(value: Any) -> str:
    text = repr(value)
    return "nothing" if value is None else text if len(text) <= 60 else text[:57] + "..."


def _describe(annotation: Any) -> str:
    words = {
        int: "a whole number", float: "a number", bool: "true or false", str: "text",
        Path: "a path", type(None): "nothing", None: "nothing",
    }  # fmt: skip
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in words:
        return words[annotation]
    if _is_union(annotation):
        return " or ".join(_describe(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(str(option) for option in arguments)}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} ({', '.join(_describe(part) for part in arguments)})"
    if origin in (list, tuple, Sequence):
        return f"a list (each item {_describe(arguments[0])})"
    if origin in (dict, Mapping):
        return f"a group of 'name: value' (each value {_describe(arguments[1])})"
    return getattr(annotation, "__name__", str(annotation))
