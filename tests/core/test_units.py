import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import UsageError
from caudal.core.units import Bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [("4GiB", 4 * 2**30), ("512 MB", 512 * 10**6), ("1.5g", 1_500_000_000), ("100", 100), ("7b", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, value: int) -> None:
    assert Bytes.parse(text) == value


@pytest.mark.parametrize("text", ["", "lots", "-1GiB", "0", "3 parsecs", "GiB", "1e9"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="4GiB"):
        Bytes.parse(text)


@given(st.integers(1, 2**50))
def test_a_printed_size_reads_back_within_its_three_digits(value: int) -> None:
    assert abs(Bytes.parse(str(Bytes(value))) - value) <= 0.005 * value + 1
