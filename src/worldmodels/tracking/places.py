"""The addresses of files in a local store. MLflow writes them down in full, so they must be mended if the folder moves."""

import sqlite3
from contextlib import closing
from pathlib import Path

FILES = "mlartifacts"
"""The folder of files beside a database."""
ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Table -> columns that hold addresses."""


def files_of(database: Path) -> str:
    """Return the address of the folder of files beside a database."""
    return (database.parent / FILES).resolve().as_uri()


def mend(database: Path, before: str) -> int:
    """Point the addresses below ``before`` at the folder beside the database; return how many were changed."""
    after, changed = files_of(database), 0
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, columns in ADDRESSES.items():
            known = {row[1] for row in connection.execute(f"pragma table_info({table})")}
            for column in known & set(columns):
                changed += connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
                ).rowcount
    return changed
