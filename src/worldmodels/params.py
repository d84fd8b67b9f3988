"""params.yaml -> validated config. Each section's class stands beside what it configures and derives from ``Config``."""

import difflib
import reprlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from worldmodels.errors import ParamsError

PARAMS_FILE = Path("params.yaml")
MOST_VALUES = 100_000  # that a params file may hold, its aliases written out
MOST_PROBLEMS = 20  # that one message tells of
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 3, 100, 100


class Config(BaseModel):
    """Base of every config class: strict types, unknown keys refused, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def load_yaml(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read a params file without validating its values.

    Raises:
        ParamsError: the file is missing, is not YAML, is not a mapping, or is larger than any params are.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ParamsError(f"{path} does not exist. `wm preset quick` writes it.") from None
    except (ValueError, OSError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    try:
        size = _size(data, {})
    except RecursionError:  # it holds itself
        size = MOST_VALUES + 1
    if size > MOST_VALUES:
        raise ParamsError(f"{path} is nested too deeply, or its aliases make it larger than {MOST_VALUES:,} values.")
    if not isinstance(data, dict):
        raise ParamsError(f"{path} must be a mapping of sections. `wm preset quick` writes a valid one.")
    return data


def parse_yaml(text: str) -> Any:
    """Return what a text says, read as DVC reads it: YAML 1.2, in which ``2e-05`` is a number and ``yes`` a text.

    Raises:
        ValueError: it is no YAML, has a key twice, or is nested too deeply to be read.
    """
    from ruamel.yaml import YAML, YAMLError  # here: an agent that is served needs no params

    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        raise ValueError(f"line {mark.line + 1}: {problem.splitlines()[0]}" if mark and problem else str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:  # a value with a wrong tag
        raise ValueError(f"a value cannot be read ({error})") from None


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested params by dotted key.

    >>> flat({"doom.memory": {"model": {"hidden": 4}}, "seed": 0})
    {'doom.memory.model.hidden': 4, 'seed': 0}
    """
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for name, child in node.items() for k, v in flat(child, f"{prefix}.{name}" if prefix else name).items()}


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node holds, aliases written out. RecursionError if it holds itself."""
    if id(node) not in known:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        known[id(node)] = 1 + sum(_size(child, known) for child in inside)
    return known[id(node)]


def section(data: dict[str, Any], key: str, kind: Any) -> Any:
    """Return the section at a dotted ``key`` as a ``kind``: a Config class, a union of them, or any type.

    Raises:
        ParamsError: the section is wrong; each problem has a line: the key path, the value, what is allowed.
    """
    node: Any = data
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            raise ParamsError(f"{PARAMS_FILE}: `{key}` is missing. `wm check` says more.")
        node = node[part]
    return validate(node, key, kind)


def validate(node: Any, key: str, kind: Any) -> Any:
    """Return ``node`` as a ``kind``; ``key`` is named in messages."""
    try:
        return TypeAdapter(kind).validate_python(node)
    except ValidationError as error:
        raise ParamsError("\n".join(f"{PARAMS_FILE}: {line}" for line in explain(error, node, key))) from None


def explain(error: ValidationError, node: Any, key: str = "") -> list[str]:
    """Return a sentence for every problem of ``node``: the key path, the value, what is allowed."""
    details = error.errors()
    more = [f"and {len(details) - MOST_PROBLEMS} more problems."] if len(details) > MOST_PROBLEMS else []
    return [_explain(detail, node, key) for detail in details[:MOST_PROBLEMS]] + more


def _explain(detail: Any, node: Any, key: str) -> str:
    # pydantic puts a union's tag into a problem's location, which is no key of the file.
    parts: list[str] = [key] if key else []
    location = detail["loc"]
    for part in location[:-1]:
        if part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int):
            parts.append(str(part))
            node = node[part]
    path = ".".join([*parts, *map(str, location[-1:])])
    if detail["type"] == "missing":
        return f"`{path}` is missing."
    if detail["type"] == "extra_forbidden":
        known = sorted({name for cls in _all_configs(Config) for name in cls.model_fields})
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        if "." not in path and isinstance(detail["input"], dict):
            hint += " The section of an environment must be named in `environments`."
        return f"unknown key `{path}`.{hint}"
    return f"`{path}` = {_SHOWN.repr(detail['input'])}: {detail['msg'].removeprefix('Value error, ')}."


def _all_configs(cls: type[Config]) -> set[type[Config]]:
    return {cls} | {sub for child in cls.__subclasses__() for sub in _all_configs(child)}
