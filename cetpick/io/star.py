"""STAR files as RELION, Warp and others write them.

The reader is our own because starfile cannot promise what names need: it turns the name ``nan`` into a missing value,
takes ``007`` for the number 7 unless every such column is named beforehand, rewrites apostrophes, and tells no line
numbers. Here every value stays the text that stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cetpick.errors import InputError
from cetpick.io.atomic import replacing

Block = pd.DataFrame | Mapping[str, object]
"""A loop (a DataFrame) or a list of label-value pairs (a mapping)."""

_TOKEN = re.compile(r"""\s*(?:(\#.*)|"([^"]*)"(?=\s|$)|'([^']*)'(?=\s|$)|(\S+))""")


def read_bytes(path: str | PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: it cannot be read, or it is empty.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from None
    if not data:
        raise InputError("the file is empty", file=path, cure="was the program that wrote it interrupted?")
    return data


def read_text(path: str | PathLike[str]) -> str:
    """Return a UTF-8 text file, without a byte order mark.

    Raises:
        InputError: it cannot be read, is empty, or is no text.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("is not a text file", file=path, found=f"a byte that is no text at {error.start}") from None
    if "\0" in text:
        raise InputError("is not a text file", file=path, found=f"a zero byte at {text.index(chr(0))}")
    return text


def read_star(path: str | PathLike[str]) -> dict[str, pd.DataFrame]:
    """Read every block of a STAR file.

    Args:
        path: the file.

    Returns:
        A table for each block, by block name (the text after ``data_``, may be empty). Columns are labels without the
        leading underscore; all values are str, exactly as written, without quotes. A list block has one row.

    Raises:
        InputError: not a STAR file, or a line that does not fit, with its number.
    """
    blocks: dict[str, _BlockReader] = {}
    block = None
    for number, tokens in _lines(read_text(path)):
        # A row of several values may begin with a name such as data_01, so a heading stands alone in its line.
        if len(tokens) == 1 and tokens[0].startswith("data_"):
            name = tokens[0].removeprefix("data_")
            if name in blocks:
                raise InputError(f"line {number}: a second block data_{name}", file=path)
            block = blocks[name] = _BlockReader()
        elif block is None:
            raise InputError(
                f"line {number}: not a STAR file", file=path, expected="a line that begins with data_", found=tokens[0]
            )
        elif problem := block.take(tokens):
            raise InputError(f"line {number}: {problem}", file=path)
    if not blocks:
        raise InputError("not a STAR file", file=path, expected="a line that begins with data_")
    return {name: block.table() for name, block in blocks.items()}


def star_numbers(table: pd.DataFrame, labels: Sequence[str], *, file: str | PathLike[str]) -> NDArray[np.float64]:
    """Return columns of a table of text as finite numbers, shape (rows, len(labels)).

    Raises:
        InputError: a label is missing, or a value is no finite number.
    """
    if missing := [label for label in labels if label not in table.columns]:
        raise InputError(f"column {missing[0]} is missing", file=file, expected=", ".join(labels))
    numbers = np.empty((len(table), len(labels)))
    for column, label in enumerate(labels):
        numbers[:, column] = pd.to_numeric(table[label], errors="coerce")
        if not np.isfinite(numbers[:, column]).all():
            row = int(np.argmin(np.isfinite(numbers[:, column])))
            raise InputError(
                f"row {row + 1} of column {label} is not a number", file=file, found=repr(table[label].iloc[row])
            )
    return numbers


def write_star(path: str | PathLike[str], blocks: Mapping[str, Block], *, version: str | None = None) -> None:
    """Write a STAR file that every RELION since 3.1 reads; it replaces ``path`` only when complete.

    Args:
        path: the file.
        blocks: by block name: a DataFrame becomes a loop, a mapping a list. Floats get six decimals.
        version: for the line ``# version <version>`` above each block, such as "50001" for RELION 5.

    Raises:
        InputError: a value that RELION could not read back: empty, with blanks or quotes, or beginning with # or _.
    """
    text = "".join(_block_text(path, name, block, version) for name, block in blocks.items())
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


class _BlockReader:
    """Collects one block: a list of label-value pairs, or a loop of labels and then rows."""

    def __init__(self) -> None:
        self.labels: dict[str, None] = {}
        self.rows: list[list[str]] = []
        self.values: list[str] = []
        self.is_loop = False

    def take(self, tokens: list[str]) -> str | None:
        """Take a line; return what is wrong with it, if anything."""
        first = tokens[0]
        if first == "loop_" and len(tokens) == 1:
            if self.is_loop or self.labels:
                return "a block holds one loop or one list, here a loop follows"
            self.is_loop = True
        elif first.startswith("_"):
            return self._take_label(first[1:], tokens[1:])
        elif not self.is_loop:
            return f"expected a label or loop_, found {first}"
        elif len(tokens) != len(self.labels):
            return f"expected {len(self.labels)} values, one a label, found {len(tokens)}"
        else:
            self.rows.append(tokens)
        return None

    def _take_label(self, label: str, values: list[str]) -> str | None:
        if label in self.labels:
            return f"label _{label} stands twice in its block"
        if self.rows:
            return f"label _{label} follows the rows of a loop"
        if len(values) != (0 if self.is_loop else 1):
            return f"label _{label} has {len(values)} values"
        self.labels[label] = None
        self.values += values
        return None

    def table(self) -> pd.DataFrame:
        rows = self.rows if self.is_loop else [self.values]
        return pd.DataFrame(rows, columns=list(self.labels), dtype=object)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and values of each line that holds some, without comments and quotes."""
    for number, line in enumerate(text.split("\n"), start=1):
        tokens = _tokens(line) if any(mark in line for mark in "#\"'") else line.split()
        if tokens:
            yield number, tokens


def _tokens(line: str) -> list[str]:
    matches = _TOKEN.finditer(line.strip())
    return [next(part for part in match.groups()[1:] if part is not None) for match in matches if match[1] is None]


def _block_text(path: str | PathLike[str], name: str, block: Block, version: str | None) -> str:
    heading = [f"# version {version}", ""] if version else []
    heading += [f"data_{name}", ""]
    if isinstance(block, pd.DataFrame):
        heading += ["loop_", *(f"_{label} #{number}" for number, label in enumerate(block.columns, start=1))]
        columns = [[value_text(path, label, value) for value in block[label]] for label in block.columns]
        body = ["\t".join(row) for row in zip(*columns, strict=True)]
    else:
        body = [f"_{label}\t{value_text(path, label, value)}" for label, value in block.items()]
    return "\n".join(["", *heading, *body, ""])


def value_text(path: str | PathLike[str], label: str, value: object) -> str:
    """A value as it is written into a file.

    Raises:
        InputError: RELION could not read it.
    """
    text = f"{value:.6f}" if isinstance(value, float | np.floating) else str(value)
    if not re.fullmatch(r"[^\s#_\"'][^\s\"']*", text) or not text.isprintable():
        raise InputError(
            f"RELION cannot read this value of {label}",
            file=path,
            expected="text without blanks and quotes that begins with neither # nor _",
            found=repr(text),
            cure="work in the tomograms' folder and name them from there (cd, relative paths), if it lies above; else "
            "rename the tomogram or its folder, or give a link to it whose name has none",
        )
    return text
