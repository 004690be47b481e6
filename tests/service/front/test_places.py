r"""`C:\…`, `/mnt/c/…` and `/data/…`: there and back; and folders shown by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.service.places import Places, Veil
from caudal.service.problems import Refused
from caudal.service.roots import Roots
from caudal.service.serving import Place, Serving
from caudal.service.settings import Settings

TABLE = Places(
    [
        Place(windows=r"C:\scenes", wsl="/mnt/c/scenes", server="/data/scenes"),
        Place(windows=r"C:\scenes\old", wsl="/mnt/c/scenes/old", server="/archive/old"),
        Place(windows=r"D:\\", wsl="/mnt/d", server="/data/d"),
    ]
)
PART = st.text(
    st.characters(blacklist_characters='/\\:*?"<>|\0', blacklist_categories=("Cs", "Cc")),
    min_size=1,
    max_size=8,
)
PARTS = st.lists(PART.filter(lambda part: part.strip() not in ("", ".", "..")), max_size=4)
KINDS = st.sampled_from(["windows", "wsl", "server"])
PREFIX = {
    "windows": ["C:\\scenes", "C:\\scenes\\old", "D:\\"],
    "wsl": ["/mnt/c/scenes", "/mnt/c/scenes/old", "/mnt/d"],
    "server": ["/data/scenes", "/archive/old", "/data/d"],
}


@given(KINDS, KINDS, st.integers(0, 2), PARTS)
def test_every_path_of_the_table_goes_there_and_back(
    source: str, target: str, row: int, parts: list[str]
) -> None:
    separator = "\\" if source == "windows" else "/"
    text = PREFIX[source][row].rstrip(separator) + "".join(separator + part for part in parts)
    if row == 2 and not parts and source == "windows":
        text += "\\"
    there = TABLE.to(text, source, target)  # type: ignore[arg-type]
    assert there is not None
    assert TABLE.to(there, target, source) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "here"),
    [
        (r"C:\scenes\roofs\a.tif", "/data/scenes/roofs/a.tif"),
        (r"c:/Scenes/roofs", "/data/scenes/roofs"),
        ("/mnt/c/scenes/roofs", "/data/scenes/roofs"),
        ("/data/scenes/roofs", "/data/scenes/roofs"),
        (r"C:\scenes\old\b", "/archive/old/b"),
        (r"E:\other", "/mnt/e/other"),
    ],
)
def test_a_place_is_found_under_any_of_its_names(text: str, here: str) -> None:
    assert TABLE.here(text) == Path(here)


def test_a_neighbour_with_a_longer_name_is_another_folder() -> None:
    assert TABLE.to("/data/scenes2/a", "server", "windows") is None
    assert TABLE.to("/elsewhere", "server", "wsl") is None


def test_a_place_outside_of_the_roots_is_refused_whether_it_exists_or_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    roots = Roots(Settings(home=tmp_path / "home"), Serving(roots={"in": tmp_path / "in"}))
    assert roots.find(f"{tmp_path}/in/a/b") == ("in", "a/b")
    for place in ("/etc", f"{tmp_path}/in/../home", "relative", "", "/no/such", f"{tmp_path}/inside", "\0"):
        with pytest.raises(Refused) as refused:
            roots.find(place)
        assert refused.value.status_code == 403


@given(st.lists(PART, min_size=1, max_size=3))
def test_no_known_folder_is_seen_through_the_veil(parts: list[str]) -> None:
    veil = Veil({"in": Path("/srv/in"), "deep": Path("/srv/in/deep")})
    text = "cannot read /srv/in/" + "/".join(parts) + " and /srv/in/deep/x"
    assert "/srv/in" not in veil(text)
    assert veil("/srv/in/a.tif is broken") == "in:a.tif is broken"
    assert veil("/srv/inside/a") == "/srv/inside/a"
    assert veil.all({"a": ["/srv/in", 1, None]}) == {"a": ["in:", 1, None]}
