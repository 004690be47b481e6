"""Windows paths become the paths that this system has, or are refused; all others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from caudal.core.errors import UsageError
from caudal.data.paths import local_path


@pytest.mark.parametrize(
    "text", ["C:\\data\\x.tif", "c:/data/x.tif", "C:\\data/x.tif", "C:\\\\data\\\\x.tif"]
)
def test_a_windows_path_is_found_under_its_mount(tmp_path: Path, text: str) -> None:
    expected = tmp_path / "c" / "data" / "x.tif"
    expected.parent.mkdir(parents=True)
    expected.touch()
    assert local_path(text, tmp_path) == expected


def test_a_windows_path_with_nothing_behind_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for text in ("C:\\nothing.tif", "D:/x.tif"):
        with pytest.raises(UsageError) as caught:
            local_path(text, tmp_path)
        assert text in caught.value.message
        assert caught.value.hint


def test_an_output_needs_its_drive_alone(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    assert local_path("C:\\out\\mask.tif", tmp_path, must_exist=False) == tmp_path / "c" / "out" / "mask.tif"
    with pytest.raises(UsageError):
        local_path("D:\\out\\mask.tif", tmp_path, must_exist=False)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/x.tif") == tmp_path / "x.tif"
    with pytest.raises(UsageError):
        local_path("~nobody-of-that-name/x.tif")


@pytest.mark.parametrize(
    "text", ["x.tif", "/data/x.tif", "a\\b.tif", "C:x.tif", "CC:/x", ".", "s3://bucket/x.tif"]
)
def test_all_else_is_unchanged(text: str) -> None:
    assert local_path(text) == Path(text)
