"""Files that are either whole or not there, with bytes that depend on their content alone."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import is_numeric_dtype
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from worldmodels.params import explain
from worldmodels.storage.layout import damaged, require

TEXTS = ("policy", "phase", "world", "split")
"""Columns of curves that hold texts; all others hold numbers."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader, or a run after a crash, sees the old file, or none, or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the given order."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def form(fields: Mapping[str, Any]) -> Any:
    """Return the type of a JSON object that has these fields, of these types, and may have more."""
    required: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
    return create_model("form", __config__=ConfigDict(strict=True, allow_inf_nan=False), **required)


def read_json(path: Path, kind: Any = Any) -> Any:
    """Read JSON; ArtifactError if it is missing or broken, or does not have the form of a ``kind``, a pydantic type."""
    try:
        value = json.loads(require(path).read_text(encoding="utf-8"))
        TypeAdapter(kind).validate_python(value)
        return value
    except ValidationError as error:
        raise damaged(path, " ".join(explain(error, value))) from None
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(path, error) from None


def write_curve(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write a curve as CSV: one row a point, six significant digits; ``columns`` name the columns of a curve without rows."""
    table = pd.DataFrame(rows, columns=None if rows else list(columns))
    write_bytes(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def read_curve(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return a curve; ArtifactError if it is missing, is no table, lacks one of the ``columns``, or has texts for numbers."""
    try:
        table = pd.read_csv(require(path), keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str))
        _check(columns, list(table.columns.astype(str)))
        numbers: list[Any] = [] if table.empty else list(table.drop(columns=[*TEXTS], errors="ignore"))
        if wrong := [name for name in numbers if not is_numeric_dtype(table[name]) or np.isinf(table[name]).any()]:
            raise ValueError(f"{', '.join(wrong)}: numbers are expected")
        return table
    except (ValueError, OSError) as error:
        raise damaged(path, error) from None


def _check(columns: Sequence[str], found: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in found]:
        raise ValueError(f"it lacks {', '.join(missing)}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(source: Path, target: Path) -> None:
    """Put a file at a second place, at once if the file system can; folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, with checksums."""
    write_bytes(path, table.to_parquet(index=False, write_page_checksum=True))


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table; ArtifactError if it is missing, is not what was written, or lacks one of the ``columns``.

    Its values have checksums; the names of its columns stand in it twice.
    """
    try:
        table = pq.read_table(require(path), page_checksum_verification=True)
        names = [column["name"] for column in json.loads(table.schema.metadata[b"pandas"])["columns"]]
        if names != table.column_names:
            raise ValueError("the names of its columns are others")
        _check(columns, names)
        return table.to_pandas()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from None
