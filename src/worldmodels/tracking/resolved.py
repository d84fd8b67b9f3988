"""The settings with which an iteration was made, those that are defaults of the config classes among them."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError


def resolved_config(sections: Mapping[str, Any]) -> str:
    """Return params as YAML, with all defaults. A section of another version of the code stays as it was written.

    Args:
        sections: dotted key of params.yaml -> what stood there, as dvc.lock has it.
    """
    # Here: it brings torch along, which a command that changes nothing does not wait for.
    from worldmodels.project import EnvironmentSection, Project

    fields = EnvironmentSection.model_fields | {"compute": Project.model_fields["compute"]}
    kinds: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(field.annotation) for name, field in fields.items()}  # type: ignore[arg-type]
    whole: dict[str, Any] = {}
    for key, written in sections.items():
        *path, last = key.split(".")
        node = whole
        for part in path:
            node = node.setdefault(part, {})
        alone = path[1:] == ["controllers"]  # one section of several
        kind = kinds.get("controllers" if alone else last)
        node[last] = _with_defaults(kind, {last: written})[last] if alone and kind else _with_defaults(kind, written)
    return yaml.safe_dump(whole, sort_keys=True, allow_unicode=True)


def _with_defaults(kind: TypeAdapter[Any] | None, written: Any) -> Any:
    try:
        return written if kind is None else kind.dump_python(kind.validate_python(written), mode="json")
    except ValidationError:
        return written
