"""Tables come back column by column as pyarrow itself reads them, a block at a time and never held whole."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caudal.data.byte_file import LocalFile
from caudal.data.sample_files import SAMPLE_READERS
from caudal.data.sample_files.table import TableReader
from caudal.data.sample_files.table_footer import read_footer
from tests.data.sample_files.all_alike import (
    MemoryFile,
    check_fuzz,
    everything,
    in_threads,
    refusal,
    same,
)

READER = TableReader()
SLOW = [HealthCheck.too_slow]  # a busy machine is no fault
NUMBERS = {
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
}


def parquet(table: Any, **options: Any) -> MemoryFile:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return MemoryFile(stream.getvalue(), "t.parquet")


def text(content: str | bytes) -> MemoryFile:
    return MemoryFile(content.encode() if isinstance(content, str) else content, "t.csv")


@st.composite
def columns(draw: Any, rows: int) -> Any:
    """A column of numbers, of lists or of texts, of `rows` rows, in which numbers may be missing."""
    kind = draw(st.sampled_from(list(NUMBERS)))
    missing = st.one_of(st.none(), NUMBERS[kind]) if draw(st.booleans()) else NUMBERS[kind]
    many = {"min_size": rows, "max_size": rows}
    shape = draw(st.sampled_from(["scalar", "list", "fixed", "matrix", "text"]))
    if shape == "text":
        values = draw(st.lists(st.sampled_from(["", "a", "ñ", "zz"]), **many))
        return pa.array(values, draw(st.sampled_from([pa.string(), pa.large_string()])))
    if shape == "list":
        make = draw(st.sampled_from([pa.list_, pa.large_list]))
        return pa.array(draw(st.lists(st.lists(missing, max_size=4), **many)), make(kind))
    if shape == "fixed":
        return pa.array(draw(st.lists(st.lists(missing, min_size=3, max_size=3), **many)), pa.list_(kind, 3))
    if shape == "matrix":
        row = st.lists(NUMBERS[kind], min_size=2, max_size=2)
        values = draw(st.lists(st.lists(row, min_size=3, max_size=3), **many))
        return pa.array(values, pa.list_(pa.list_(kind, 2), 3))
    return pa.array(draw(st.lists(missing, **many)), kind)


@st.composite
def tables(draw: Any) -> Any:
    rows, names = draw(st.integers(0, 9)), ["a", "a.b", "ñ ü", ""]
    return pa.table({name: draw(columns(rows)) for name in names[: draw(st.integers(1, 4))]})


def expected(column: Any) -> tuple[Any, list[int] | None]:
    """The values of a column by way of Python, and the lengths of its rows if it is ragged."""
    values, kind, lengths = column.to_pylist(), column.type, None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array([sorted(set(values)).index(value) for value in values], np.int64), None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths, values = [len(value) for value in values], [one for value in values for one in value]
        kind = kind.value_type
    shape = [len(values)]
    while pa.types.is_fixed_size_list(kind):
        shape, kind = [*shape, kind.list_size], kind.value_type
        values = [one for value in values for one in value]
    dtype = np.dtype(bool) if kind == pa.bool_() else np.dtype(kind.to_pandas_dtype())
    if None in values and dtype.kind != "f":
        dtype = np.dtype(np.float64)
    values = [math.nan if value is None else value for value in values]
    with np.errstate(over="ignore"):
        return np.array(values, dtype).reshape(shape), lengths


@settings(max_examples=70, deadline=None, suppress_health_check=SLOW)
@given(table=tables(), group=st.integers(1, 9), dictionary=st.booleans())
def test_a_parquet_table_comes_back_group_by_group(table: Any, group: int, dictionary: bool) -> None:
    file = parquet(table, row_group_size=group, use_dictionary=dictionary)
    part = READER.part(file, whole=False)
    assert part.ends.tolist() == [min(at + group, len(table)) for at in range(0, len(table), group)]
    found = everything(READER, file)
    assert list(found) == table.column_names
    for field in part.fields:
        values, lengths = expected(table.column(field.name))
        assert same(found[field.name], values)
        assert (part.rows[field.name].tolist() if field.ragged else None) == lengths


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(table=tables(), group=st.integers(1, 9))
def test_a_parquet_table_as_one_sample_has_its_columns_as_sequences(table: Any, group: int) -> None:
    lists = [name for name in table.column_names if pa.types.is_list(table.column(name).type)]
    lists += [name for name in table.column_names if pa.types.is_large_list(table.column(name).type)]
    file = parquet(table, row_group_size=group)
    if len(lists) == len(table.column_names):
        refusal(READER, file, whole=True)
        return
    part, found = READER.part(file, whole=True), everything(READER, file, whole=True)
    assert (part.samples, len(part.left_out)) == (1, len(lists))
    for field in part.fields:
        assert field.shape[0] is None
        assert same(found[field.name], expected(table.column(field.name))[0])


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(table=tables(), group=st.integers(1, 9), statistics=st.booleans())
def test_the_counts_of_a_footer_are_those_that_pyarrow_finds(
    table: Any, group: int, statistics: bool
) -> None:
    file = parquet(table, row_group_size=group, write_statistics=statistics, store_schema=False)
    footer, metadata = read_footer(file), pq.ParquetFile(io.BytesIO(file._data)).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert footer.rows == tuple(one.num_rows for one in groups)
    chunks = [[one.column(j) for j in range(metadata.num_columns)] for one in groups]
    assert footer.chunk_bytes == max((c.total_uncompressed_size for row in chunks for c in row), default=0)
    assert footer.stored_bytes == max((c.total_compressed_size for row in chunks for c in row), default=0)
    missing = [[c.statistics is not None and c.statistics.null_count > 0 for c in row] for row in chunks]
    assert footer.nulls == tuple(any(of) for of in zip(*missing, strict=True))


def test_what_is_no_number_is_left_out_and_told() -> None:
    table = pa.table(
        {
            "when": pa.array([0, 1], pa.timestamp("s")),
            "both": pa.array([{"u": 1, "v": [1.0]}, {"u": 2, "v": []}]),
            "deep": pa.array([[[1], []], []], pa.list_(pa.list_(pa.int8()))),
            "words": pa.array([["a"], []], pa.list_(pa.string())),
            "cents": pa.array([1, 2]).cast(pa.decimal128(21, 2)),
            "x": pa.array([1, None]),
            "raw": pa.array([b"a", b"b"]),
        }
    )
    part = READER.part(parquet(table), whole=False)
    assert [(field.name, str(field.dtype)) for field in part.fields] == [("x", "float64")]
    assert [line.split("”")[0][1:] for line in part.left_out] == [n for n in table.column_names if n != "x"]


def test_columns_behind_nested_ones_find_their_own_statistics() -> None:
    table = pa.table(
        {"both": pa.array([{"u": 1, "v": [1]}, {"u": None, "v": []}]), "x": [1, 2], "z": [None, 1]}
    )
    fields = READER.part(parquet(table), whole=False).fields
    assert [(field.name, str(field.dtype)) for field in fields] == [("x", "int64"), ("z", "float64")]


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_texts_are_codes_of_at_most_1000_different_ones(format: str) -> None:
    few, many = [f"t{i % 1000:03}" for i in range(1500)], [str(i) + "t" for i in range(1500)]
    table = pa.table({"few": few, "many": many, "x": range(1500)})
    file = parquet(table, row_group_size=400) if format == "parquet" else as_csv(table)
    part = READER.part(file, whole=False)
    assert [field.name for field in part.fields] == ["few", "x"]
    assert part.fields[0].categories == tuple(sorted(set(few)))
    assert len(part.left_out) == 1
    assert everything(READER, file)["few"].tolist() == [i % 1000 for i in range(1500)]


def test_a_missing_text_is_the_empty_one() -> None:
    file = parquet(pa.table({"t": pa.array(["b", None, "", "a"]).dictionary_encode()}))
    assert READER.part(file, whole=False).fields[0].categories == ("", "a", "b")
    assert everything(READER, file)["t"].tolist() == [2, 0, 0, 1]


def test_a_missing_whole_number_that_no_statistics_told_is_refused_while_reading() -> None:
    file = parquet(pa.table({"a": [1, None, 3], "b": [1.0, None, 3.0]}), write_statistics=False)
    assert str(READER.part(file, whole=False).fields[0].dtype) == "int64"
    assert "“a” is missing" in refusal(READER, file).message


def test_a_missing_list_is_refused() -> None:
    for kind in (pa.list_(pa.int8()), pa.list_(pa.float32(), 2)):
        assert (
            "“a” is missing"
            in refusal(READER, parquet(pa.table({"a": pa.array([[1, 2], None], kind)}))).message
        )


@pytest.mark.parametrize("whole", [False, True])
def test_no_row_group_is_held_whole(whole: bool) -> None:
    rows = 5 << 19
    table = pa.table({"x": np.random.default_rng(0).normal(size=rows), "y": np.arange(rows)})
    file = parquet(
        table, row_group_size=rows, use_dictionary=False, compression="none", data_page_size=1 << 16
    )
    part = READER.part(file, whole)
    into = {"x": np.empty(rows), "y": np.empty(rows, np.int64)}
    file.largest_read_bytes = 0
    peak_bytes = arrow_bytes(lambda: READER.read(file, part, 0, into))
    assert same(into["x"], table.column("x").to_numpy())
    assert file.largest_read_bytes < 2 << 20
    assert peak_bytes < 3 << 20 < 1 << 24 < into["x"].nbytes
    assert peak_bytes < part.scratch_bytes


def arrow_bytes(work: Callable[[], object]) -> int:
    """The most that pyarrow held during `work`."""
    default = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(default)
    pa.set_memory_pool(counting)
    try:
        work()
    finally:
        pa.set_memory_pool(default)
    peak_bytes = counting.max_memory()
    assert peak_bytes
    return int(peak_bytes)


def test_long_lists_are_decoded_within_the_scratch_that_the_part_names() -> None:
    x = np.random.default_rng(0).normal(size=(6000, 700)).astype("f4")
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 700)):
        flat = pa.array(x.reshape(-1))
        ends = pa.array(np.arange(0, x.size + 1, 700), pa.int32())
        lists = pa.ListArray.from_arrays(ends, flat).cast(kind)
        file = parquet(
            pa.table({"x": lists}), use_dictionary=False, compression="none", data_page_size=1 << 18
        )
        part = READER.part(file, whole=False)
        into = {"x": np.empty(x.shape if kind == pa.list_(pa.float32(), 700) else x.size, "f4")}
        peak_bytes = arrow_bytes(partial(READER.read, file, part, 0, into))
        assert np.array_equal(into["x"].reshape(x.shape), x)
        assert peak_bytes < part.scratch_bytes
        assert file.largest_read_bytes <= 1 << 24


def as_csv(table: Any) -> MemoryFile:
    stream = io.BytesIO()
    pa.csv.write_csv(table, stream)
    return text(stream.getvalue())


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(
    ints=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20),
    floats=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=20, max_size=20),
    bools=st.lists(st.booleans(), min_size=20, max_size=20),
    texts=st.lists(st.text('ab",\n ñ', max_size=5), min_size=20, max_size=20),
    whole=st.booleans(),
)
def test_a_csv_comes_back_as_pyarrow_wrote_it(
    ints: list[int | None], floats: list[float], bools: list[bool], texts: list[str], whole: bool
) -> None:
    n = len(ints)
    table = pa.table(
        {
            "i": pa.array(ints, pa.int64()),
            "f": floats[:n],
            "b": bools[:n],
            "t": ["x" + text for text in texts[:n]],
        }
    )
    file = as_csv(table)
    found = everything(READER, file, whole)
    if any(value is not None for value in ints):
        assert same(found["i"], expected(table.column("i"))[0])
    else:
        assert "i" not in found
    assert np.array_equal(found["f"], floats[:n])
    assert same(found["b"], np.array(bools[:n]))
    assert same(found["t"], expected(table.column("t"))[0])
    assert READER.part(file, whole).samples == (1 if whole else n)


def long_csv(rows: int = 60_000) -> tuple[MemoryFile, list[tuple[int, float, str]]]:
    """About 4 MiB with texts in quotes that hold commas, quotes and line ends."""
    said = ["plain", 'she said "ñ, no"', "two\nlines, here", "", '"']
    lines = [(i, i / 7, said[i % 5] + "." * 30) for i in range(rows)]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["n", "f", "t"])
    writer.writerows(lines)
    return text(stream.getvalue()), lines


@pytest.mark.parametrize("whole", [False, True])
def test_a_long_csv_is_read_in_blocks_that_end_with_lines(whole: bool) -> None:
    file, lines = long_csv()
    found = everything(READER, file, whole)
    assert same(found["n"], np.arange(len(lines)))
    assert same(found["f"], np.array([f for _n, f, _t in lines]))
    part = READER.part(file, whole)
    texts = part.fields[2].categories
    assert [texts[code] for code in found["t"][:10]] == [t for _n, _f, t in lines[:10]]
    assert same(found["t"], np.tile(found["t"][:5], len(lines) // 5))
    assert len(part.ends) == (1 if whole else -(-file.size_bytes // (1 << 20)))
    assert file.largest_read_bytes < 3 << 19


def test_a_block_of_csv_is_read_within_the_scratch_that_the_part_names() -> None:
    for file in (text("a,b,c\n" + "0,1,2\n" * 300_000), long_csv()[0]):
        part = READER.part(file, whole=False)
        assert len(part.ends) > 1
        into = {field.name: np.empty(int(part.ends[0]), field.dtype) for field in part.fields}
        peak_bytes = arrow_bytes(partial(READER.read, file, part, 0, into))
        assert peak_bytes + (1 << 20) < part.scratch_bytes


def test_types_are_those_of_the_whole_file() -> None:
    rows = 200_000
    late = {"f": "0.5", "t": "word", "m": "", "b": "", "e": ""}
    body = "".join(f"{i},{i},{i},true,\n" for i in range(rows))
    file = text("f,t,m,b,e\n" + body + ",".join(late.values()) + "\n")
    part = READER.part(file, whole=False)
    assert len(part.ends) > 2
    assert [(field.name, str(field.dtype)) for field in part.fields] == [
        ("f", "float64"), ("m", "float64"), ("b", "float64")
    ]  # fmt: skip
    assert sorted(line.split("”")[0][1:] for line in part.left_out) == ["e", "t"]
    found = everything(READER, file)
    assert found["f"][-1] == 0.5
    assert np.array_equal(found["f"][:-1], np.arange(rows))
    assert np.isnan(found["m"][-1])
    assert np.isnan(found["b"][-1])
    assert found["b"][:-1].all()


def test_a_number_among_texts_is_a_text() -> None:
    padding = "".join(f"{i % 7},1\n" for i in range(400_000))
    file = text("t,x\n" + padding + "word,1\n")
    part = READER.part(file, whole=False)
    assert part.fields[0].categories == ("0", "1", "2", "3", "4", "5", "6", "word")
    assert everything(READER, file)["t"][-3:].tolist() == [399_998 % 7, 399_999 % 7, 7]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("1,2.5\n3,4\n", {"0": [1, 3], "1": [2.5, 4.0]}),
        ("0,1\n5,6\n", {"0": [5], "1": [6]}),
        (",x\n7,8\n", {"0": [7], "x": [8]}),
        ("\ufeffa, b \r\n1,2\r\n", {"a": [1], "b": [2]}),
        ("\n\na\n1\n\n\n2", {"a": [1, 2]}),
        ('"a ""b""\nc",d\n1,2', {'a "b"\nc': [1], "d": [2]}),
        ("a\nTrue\nfalse\n", {"a": [True, False]}),
        ("a,b\n1,2020-01-01\n", {"a": [1]}),
        ("a\n1\nNaN\n", {"a": [1.0, math.nan]}),
        ("a\n1e400\n-inf\n", {"a": [math.inf, -math.inf]}),
    ],
)
def test_small_csv_files_are_understood(content: str, found: dict[str, list[float]]) -> None:
    arrays = everything(READER, text(content))
    assert set(arrays) == set(found)
    assert all(
        np.array_equal(arrays[name], found[name], equal_nan=arrays[name].dtype.kind == "f") for name in found
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a,b\n1,2\n3\n", "row 2 has 1 columns"),
        ("a,b\n1,2\n3,4,5\n", "row 2 has 3 columns"),
        ("a,a\n1,2\n", "two of its columns"),
        ("a;b\n1;2\n", "commas"),
        ("a\tb\n1\t2\n", "commas"),
        ("a,b\n", "no rows"),
        ("a,b", "no rows"),
        ("\n\n \n", ""),
        ("a\n2020-01-01\n", "no column of numbers"),
        ("a\n" + "".join(f"w{i}\n" for i in range(1001)), "no column of numbers"),
        ("ñ\n1\n".encode("latin1"), "UTF-8"),
        ("a\n1\n".encode("utf-16"), "UTF-8"),
        (b"a,b\r1,2\r3,4\r", "lines"),
        (b"\0\0\0\0", ""),
        (b"a\n\xff\xfe\n", ""),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(content: Any, why: str) -> None:
    assert why in refusal(READER, text(content)).message


def test_a_wrong_row_in_a_later_block_is_named_by_its_number() -> None:
    body = "1234567,1\n" * 150_000
    assert "row 150001 has 1 columns" in refusal(READER, text("a,b\n" + body + "5\n")).message


def test_a_quote_that_is_never_closed_is_refused_before_much_is_held() -> None:
    class Endless(MemoryFile):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            buffer[:] = b"a" * len(buffer) if offset else b'a,b\n1,"'.ljust(len(buffer), b"a")

    file = Endless(b"", "t.csv")
    file.size_bytes = 1 << 40
    assert "does not end" in refusal(READER, file).message


def test_real_beats_come_back(data_dir: Path) -> None:
    path = data_dir / "seq_ecg5000" / "train.csv"
    found = everything(SAMPLE_READERS.get("table")(), LocalFile(path))
    plain = np.loadtxt(path, delimiter=",", skiprows=1)
    assert list(found)[:2] == ["label", "t0"]
    assert np.array_equal(np.stack(list(found.values()), 1), plain)


def test_molecules_come_back_without_their_formulas(data_dir: Path) -> None:
    part = READER.part(LocalFile(data_dir / "graph_bace" / "bace.csv"), whole=False)
    assert {field.name: len(field.categories) for field in part.fields} == {
        "id": 0, "label": 0, "scaffold_split": len({"train", "valid", "test"})
    }  # fmt: skip
    assert len(part.left_out) == 1


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_many_threads_read_one_file(format: str, tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(3000) + 0.5, "t": [f"t{i % 5}" for i in range(3000)]})
    path = tmp_path / f"ñ.{format}"
    path.write_bytes((parquet(table, row_group_size=700) if format == "parquet" else as_csv(table))._data)
    file = LocalFile(path)

    def work() -> None:
        assert same(everything(READER, file)["x"], np.arange(3000) + 0.5)

    in_threads(work)


@pytest.mark.parametrize("data", [b"x", b"PAR1", b"PAR1" + bytes(50) + b"PAR1", b"PAR1\xff\xff\xff\xffPAR1"])
def test_other_files_are_no_parquet(data: bytes) -> None:
    refusal(READER, MemoryFile(data, "t.parquet"))


def test_a_truncated_parquet_file_is_refused() -> None:
    data = parquet(pa.table({"x": np.arange(50.0), "t": ["a", "b"] * 25}))._data
    for length in range(1, len(data), 53):
        refusal(READER, MemoryFile(data[:length], "t.parquet"))


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_changed_bytes_give_arrays_or_a_refusal(format: str) -> None:
    table = pa.table({"x": np.arange(40.0), "n": [*range(39), None], "t": ["a", "b", "c", ""] * 10})
    if format == "csv":
        check_fuzz(READER, as_csv(table)._data, "t.csv", 300)
        return
    lists = pa.array([list(range(i % 4)) for i in range(40)], pa.list_(pa.int32()))
    check_fuzz(READER, parquet(table.append_column("l", lists), row_group_size=15)._data, "t.parquet", 200)
