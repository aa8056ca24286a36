"""The Parquet records: their columns and types, and writing them so that equal input gives equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import atomic_file

_TEXT = pa.string()
CELL_COLUMNS = (
    "device",
    "device_kind",
    "framework",
    "version",
    "backend",
    "build",
    "model",
    "weights_kind",
    "quantisation",
    "workload",
    "settings",
)
_METRICS = [
    ("run", _TEXT),
    ("phase", _TEXT),
    ("metric", _TEXT),
    ("value", pa.float64()),
    ("unit", _TEXT),
    ("source", _TEXT),
    ("lower_is_better", pa.bool_()),
    ("samples", pa.int64()),
    ("reason", _TEXT),
]
SCHEMAS: dict[str, pa.Schema] = {
    "phases": pa.schema(
        [
            ("run", _TEXT),
            ("phase", _TEXT),
            ("interval", pa.int32()),
            ("start_us", pa.int64()),
            ("end_us", pa.int64()),
            ("start_boundary", _TEXT),
            ("end_boundary", _TEXT),
            ("start_observed", pa.bool_()),
            ("end_observed", pa.bool_()),
        ]
    ),
    "samples": pa.schema(
        [
            ("run", _TEXT),
            ("t_us", pa.int64()),
            ("phase", _TEXT),
            ("sensor", _TEXT),
            ("quantity", _TEXT),
            ("component", _TEXT),
            ("value", pa.float64()),
            ("unit", _TEXT),
        ]
    ),
    "metrics": pa.schema(_METRICS),
    "answers": pa.schema([("run", _TEXT), ("text", _TEXT), ("tokens", pa.int64()), ("sha256", _TEXT)]),
    "judged": pa.schema([*_METRICS, ("gate", _TEXT)]),
    "runs": pa.schema(
        [
            ("experiment", _TEXT),
            ("cell", _TEXT),
            *((name, _TEXT) for name in CELL_COLUMNS),
            ("run", _TEXT),
            ("key", _TEXT),
            ("round", pa.int32()),
            ("position", pa.int32()),
            *_METRICS[1:],
            ("gate", _TEXT),
        ]
    ),
}
CELLS_CSV = (
    "experiment",
    "cell",
    *CELL_COLUMNS,
    "phase",
    "metric",
    "unit",
    "n",
    "mean",
    "std",
    "median",
    "p05",
    "p95",
    "ci_low",
    "ci_high",
    "gate",
)
RECORDS = ("phases", "samples", "metrics", "answers")


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table of the record `name`; every column must be in every row."""
    schema = SCHEMAS[name]
    return pa.table({field.name: pa.array([row[field.name] for row in rows], field.type) for field in schema})


def write(path: str | Path, name: str, value: pa.Table) -> None:
    """Write a table as the record `name`, atomically; equal tables give equal bytes.

    Raises:
        IntegrityError: the table's columns or types are not those of the record.
    """
    if not value.schema.equals(SCHEMAS[name]):
        raise IntegrityError(
            f"a table for the record {name} has columns {value.schema.names}",
            do="report it: a record must have the columns of its schema",
        )
    with atomic_file(path, "wb") as stream:
        pq.write_table(
            value.combine_chunks(),
            stream,
            compression="zstd",
            compression_level=3,
            version="2.6",
            data_page_version="1.0",
            row_group_size=1 << 20,
            use_dictionary=True,
            store_schema=False,
        )


def read(path: str | Path, name: str) -> pa.Table:
    """Read the record `name`; IntegrityError when the file is none."""
    try:
        value = pq.read_table(Path(path))
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            f"{Path(path).name} is no Parquet record: {str(error)[:160]}",
            where=str(path),
            do="delete it: the workflow makes it again from the raw runs",
        ) from None
    if value.schema.names != SCHEMAS[name].names:
        raise IntegrityError(
            f"{Path(path).name} does not have the columns of the record {name}",
            where=str(path),
            do="delete it: the workflow makes it again from the raw runs",
        )
    return value.cast(SCHEMAS[name])
