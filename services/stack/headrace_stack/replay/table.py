"""Rows of CSV and Parquet files, with their line or row numbers, a block at a time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from headrace_stack.commands.terminal import CommandError, WrongUsageError

_BATCH: Final = 4_096
_BLOCK_BYTES: Final = 1 << 20
_SUFFIXES: Final = (".csv", ".parquet")

Row = tuple[int, tuple[Any, ...]]


def columns_of(file: Path) -> list[str]:
    """Names of a file's columns.

    Raises:
        CommandError: there is no such file, or it is of another kind.
    """
    if file.suffix not in _SUFFIXES:
        raise WrongUsageError(f"{file}: want a name that ends in {' or '.join(_SUFFIXES)}")
    try:
        if file.suffix == ".parquet":
            return [str(name) for name in pq.read_schema(file).names]
        parse = pyarrow.csv.ParseOptions(invalid_row_handler=lambda _: "skip")  # told when rows are read
        with pyarrow.csv.open_csv(file, parse_options=parse, convert_options=_text([])) as reader:
            return [str(name) for name in reader.schema.names]
    except pa.ArrowInvalid as error:
        raise CommandError(f"{file} can't be read: {str(error).splitlines()[0]}") from error


def count_rows(file: Path) -> int:
    """How many rows it has; of CSV the lines but the first."""
    if file.suffix == ".parquet":
        return int(pq.read_metadata(file).num_rows)
    lines = 0
    with file.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
    return max(0, lines - 1)


def rows_of(file: Path, columns: Sequence[str], bad: Callable[[int, str], None]) -> Iterator[Row]:
    """(number, values of these columns) of each row: text in CSV, typed values in Parquet.

    Args:
        file: CSV (the first line names the columns; no line breaks within a value) or Parquet.
        columns: wanted ones.
        bad: told the number of a row that has too few or too many values, and why.

    Raises:
        CommandError: the file is damaged.
    """
    read = _parquet if file.suffix == ".parquet" else _csv
    try:
        yield from read(file, columns, bad)
    except (pa.ArrowInvalid, OSError) as error:
        raise CommandError(f"{file} can't be read further: {str(error).splitlines()[0]}") from error


def _parquet(file: Path, columns: Sequence[str], _: Callable[[int, str], None]) -> Iterator[Row]:
    number = 0
    with pq.ParquetFile(file) as source:
        for batch in source.iter_batches(_BATCH, columns=list(dict.fromkeys(columns)), use_threads=False):
            values = [batch.column(name).to_pylist() for name in columns]
            for row in zip(*values, strict=True):
                number += 1
                yield number, row


def _csv(file: Path, columns: Sequence[str], bad: Callable[[int, str], None]) -> Iterator[Row]:
    wrong: list[int] = []

    def skip(row: Any) -> str:
        wrong.append(row.number)
        bad(row.number, f"{row.actual_columns} values, {row.expected_columns} are expected")
        return "skip"

    parse = pyarrow.csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=skip)
    read = pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    line, passed = 1, 0  # of the header; how many wrong lines were passed
    with pyarrow.csv.open_csv(file, read, parse, _text(columns)) as reader:
        for batch in reader:
            values = [batch.column(name).to_pylist() for name in columns]
            for row in zip(*values, strict=True):
                line += 1
                while passed < len(wrong) and wrong[passed] == line:
                    line, passed = line + 1, passed + 1
                yield line, row


def _text(columns: Sequence[str]) -> "pyarrow.csv.ConvertOptions":
    """Every value as text, so that a wrong one is a fault of its row and not of the file."""
    return pyarrow.csv.ConvertOptions(
        include_columns=list(dict.fromkeys(columns)) or None,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=False,
    )
