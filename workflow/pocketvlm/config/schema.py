"""Validation of a YAML file against its schema, with messages that name the key and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from pocketvlm.errors import ConfigError

_SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


@cache
def _schema(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((_SCHEMAS / f"{name}.schema.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice instead of keeping the last, and one that is no text."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):  # 1.0 is a number, on is true: no name that anything else could mean
            written = getattr(key_node, "value", None)
            named = (
                f"{written!r} is a {type(key).__name__}" if isinstance(written, str) else "a key is a list"
            )
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {named} and no text: write it in quotes", key_node.start_mark
            )
        if key in pairs:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is written twice", key_node.start_mark
            )
        pairs[key] = loader.construct_object(value_node, deep=True)
    return pairs


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """The keyword `pattern`, where `$` is the end as in JSON Schema: Python's would let a line end follow."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$\Z", r"\\Z", pattern), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


_VALIDATOR = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _pattern}
)


def load_yaml(path: Path, schema: str) -> dict[str, Any]:
    """Read a YAML file and validate it.

    Args:
        path: the file.
        schema: name of the schema, a file of `workflow/schemas` without its ending.

    Raises:
        ConfigError: the file is missing, is no YAML, or breaks the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", where=str(path), do="Check the name and `catalogues`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the file cannot be read: {error}", where=str(path), do="Make it readable"
        ) from None
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"this is no valid YAML: {problem}", where=place, do="Correct that line") from None
    validate(value, schema, where=str(path))
    assert isinstance(value, dict)
    return value


def validate(value: Any, schema: str, *, where: str) -> None:
    """Raise ConfigError for the first thing in `value` that breaks the schema."""
    validator = _VALIDATOR(_schema(schema))
    errors = sorted(
        validator.iter_errors(value), key=lambda error: (len(error.absolute_path), str(error.path))
    )
    if errors:
        raise _explained(jsonschema.exceptions.best_match(errors[:1]) or errors[0], where)


def suggest(wrong: str, known: list[str]) -> str:
    """Return the next step for a name that is not known: the closest one, or the list."""
    close = difflib.get_close_matches(wrong, known, n=1)
    listed = ", ".join(sorted(known)) or "none"
    return f"Did you mean {close[0]}? Known: {listed}" if close else f"Use one of: {listed}"


def _explained(error: Any, where: str) -> ConfigError:
    key = ".".join(str(part) for part in error.absolute_path)
    place = f"{where}: {key}" if key else where
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        extra = sorted(set(error.instance) - set(known), key=str)[0]
        return ConfigError(f"the key {extra!r} is not known", where=place, do=suggest(str(extra), known))
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        meaning = error.schema.get("properties", {}).get(missing, {}).get("description")
        return ConfigError(
            f"the key {missing!r} is missing", where=place, do=f"Add it: {meaning}" if meaning else "Add it"
        )
    if error.schema is False:
        return ConfigError("this key does not go together with its neighbours", where=place, do="Remove it")
    meaning = error.schema.get("description")
    unclear = error.validator in ("oneOf", "anyOf")
    return ConfigError(
        f"{error.instance!r} cannot stand here" if unclear else error.message,
        where=place,
        do=f"It should be {meaning}" if meaning else "Correct the value",
    )
