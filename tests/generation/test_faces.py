"""Faces are found, described, drawn and told apart, by every engine behind one contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import BadModel, BadValues, UsageError
from caudal.models.generation.faces import ENGINES
from caudal.models.generation.faces.alignment import aligned, similarity
from caudal.models.generation.faces.onnx import OnnxFaces
from caudal.models.generation.faces.stand_in import StandIn
from caudal.runs.generation.people import describe
from caudal.tasks.generation.faces import Face, affordable_px, detection_bytes, find_faces, the_face
from caudal.tasks.generation.keypoints import keypoint_picture
from caudal.tasks.generation.masks import face_masks
from tests.generation import onnx_files
from tests.generation.tiny import portrait, save_picture

SIDE = 64


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("antelope")
    faces = [(8, 9, 0, 0.9), (8, 9, 1, 0.8), (16, 10, 0, 0.7), (32, 3, 0, 0.3)]
    onnx_files.write_detector(folder / "scrfd_10g_bnkps.onnx", SIDE, faces)
    onnx_files.write_recognizer(folder / "glintr100.onnx")
    (folder / "genderage.onnx").write_bytes(b"never opened")
    return folder


def test_scrfd_answers_are_decoded_doubles_and_doubts_left_out(onnx_folder: Path) -> None:
    found = OnnxFaces(onnx_folder).detect(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert [round(face.score, 2) for face in found] == [0.9, 0.7]
    # Cell 9 of 8×8 is column 1, row 1: its centre is at (8, 8) in strides of 8 pixels.
    assert found[0].box == (8 - 16, 8 - 16, 8 + 16, 8 + 16)
    assert found[0].points_52.tolist() == [[0, 0], [16, 0], [8, 8], [0, 16], [16, 16]]
    assert found[1].box == (32 - 32, 32 - 32, 32 + 32, 32 + 32)


def test_a_picture_larger_than_a_fixed_detector_is_seen_whole(onnx_folder: Path) -> None:
    small = OnnxFaces(onnx_folder).detect(np.zeros((SIDE, SIDE, 3), np.uint8))
    large = OnnxFaces(onnx_folder).detect(np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8))
    assert [face.box for face in large] == [tuple(2 * side for side in face.box) for face in small]


def engine_of(folder: Path, wide: int, faces: list[tuple[int, int, int, float]], **more: int) -> OnnxFaces:
    pytest.importorskip("onnxruntime")
    onnx_files.write_detector(folder / "scrfd_10g.onnx", SIDE, faces, wide, **more)
    onnx_files.write_recognizer(folder / "glintr100.onnx")
    return OnnxFaces(folder)


def test_a_fixed_detector_that_is_not_square_sees_the_picture_whole(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, 2 * SIDE, [(16, 8 + 5, 0, 0.9)])  # column 5, row 1 of 8 columns
    (face,) = engine.detect(np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    assert face.box == (80 - 32, 16 - 32, 80 + 32, 16 + 32)
    (small,) = engine.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
    (large,) = engine.detect(np.zeros((4 * SIDE, 4 * SIDE, 3), np.uint8))
    assert small.box == face.box
    assert large.box == tuple(4 * side for side in face.box)
    assert engine.least_px == 2 * SIDE


def test_a_thin_picture_is_looked_at(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, 0, [])
    assert engine.detect(np.zeros((4000, 3, 3), np.uint8)) == []
    assert engine.detect(np.zeros((3, 4000, 3), np.uint8)) == []


def test_a_detector_of_other_pictures_is_a_bad_model(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no face models that can be used"):
        engine_of(tmp_path, 0, [], colours=1).detect(np.zeros((SIDE, SIDE, 3), np.uint8))


def test_arcface_sees_the_aligned_crop_from_minus_one_to_one(onnx_folder: Path) -> None:
    engine = OnnxFaces(onnx_folder)
    x_HWC = np.full((SIDE, SIDE, 3), (255, 0, 127), np.uint8)
    face = Face((8, 8, 56, 56), np.array([[20, 24], [44, 24], [32, 34], [22, 46], [42, 46]], np.float32), 1)
    numbers = engine.embed(x_HWC, face)
    matrix = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    inside = aligned(x_HWC, face.points_52).astype(np.float32).mean((0, 1)) / 127.5 - 1
    assert engine.embedding == len(numbers) == 512
    assert np.allclose(numbers, inside @ matrix, atol=1e-4)


@pytest.mark.parametrize("missing", ["scrfd_10g_bnkps.onnx", "glintr100.onnx"])
def test_a_folder_without_a_model_says_which_name_is_missing(
    onnx_folder: Path, tmp_path: Path, missing: str
) -> None:
    for path in onnx_folder.glob("*.onnx"):
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadModel, match=missing.partition("_")[0].partition("100")[0]):
        OnnxFaces(tmp_path)


def test_a_broken_onnx_file_is_a_bad_model(onnx_folder: Path, tmp_path: Path) -> None:
    for path in onnx_folder.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadModel):
        OnnxFaces(tmp_path)


def test_opencv_engine_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="yunet"):
        ENGINES.get("opencv")(tmp_path)
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(b"no model")
    with pytest.raises(BadModel):
        ENGINES.get("opencv")(tmp_path)


@pytest.fixture(scope="module")
def opencv_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    onnx_files.write_yunet(folder / "face_detection_yunet_2026may.onnx")
    onnx_files.write_sface(folder / "face_recognition_sface_2021dec.onnx")
    return folder


def test_yunet_finds_faces_of_every_scale_in_pictures_of_any_size(opencv_folder: Path) -> None:
    engine = ENGINES.get("opencv")(opencv_folder)
    x_HWC = np.zeros((100, 130, 3), np.uint8)
    cells = {(40, 16, 8): (255, 0, 0), (16, 48, 16): (0, 255, 0), (96, 64, 32): (0, 0, 255)}
    for (left, top, side), colour in cells.items():
        x_HWC[top : top + side, left : left + side] = colour
    found = {face.box: face for face in engine.detect(x_HWC)}
    for left, top, side in cells:
        x, y = left + side / 2, top + side / 2
        face = found.pop((x - side, y - 1.5 * side, x + side, y + 1.5 * side))
        points = np.reshape(onnx_files.YUNET_POINTS, (5, 2)) * side + (left, top)
        assert np.allclose(face.points_52, points, atol=1e-3)
        assert face.score > 0.99
    assert not found
    assert engine.detect(np.zeros((64, 200, 3), np.uint8)) == []
    (one,) = engine.detect(x_HWC[:40, :60])
    assert one.box == (36.0, 8.0, 52.0, 32.0)


def test_sface_sees_the_aligned_crop_as_it_is(opencv_folder: Path) -> None:
    engine = ENGINES.get("opencv")(opencv_folder)
    x_HWC = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    x_HWC[..., 0] //= 2
    face = Face((8, 8, 80, 80), np.array([[28, 34], [60, 34], [44, 48], [32, 64], [58, 64]], np.float32), 1)
    matrix = np.random.default_rng(1).standard_normal((3, 128)).astype(np.float32)
    mean = aligned(x_HWC, face.points_52).astype(np.float32).mean((0, 1))
    numbers = engine.embed(x_HWC, face)
    assert engine.embedding == len(numbers) == 128
    assert np.allclose(numbers, mean @ matrix, atol=1e-2)
    assert not np.allclose(numbers, mean[::-1] @ matrix, atol=1)


def test_an_unknown_engine_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="stand_in"):
        ENGINES.get("tea leaves")


class Counting(StandIn):
    """Remembers at which sizes it looked."""

    def __init__(self, sees_from_px: int) -> None:
        super().__init__()
        self.sees_from_px, self.looked = sees_from_px, []

    def detect(self, x_HWC):  # type: ignore[no-untyped-def]
        self.looked.append(max(x_HWC.shape[:2]))
        return super().detect(x_HWC) if self.looked[-1] >= self.sees_from_px else []


def test_small_sizes_are_tried_first_and_larger_ones_only_if_nothing_is_found() -> None:
    x_HWC = portrait(800, 800)
    near, far = Counting(100), Counting(600)
    found = find_faces(near, x_HWC), find_faces(far, x_HWC)
    assert (near.looked, far.looked) == ([128], [128, 320, 640])
    for faces in found:
        assert np.allclose((faces[0].box[0] + faces[0].box[2]) / 2, 400, atol=10)


def test_larger_sizes_are_tried_until_everybody_is_found() -> None:
    class Crowd(Counting):
        def detect(self, x_HWC):  # type: ignore[no-untyped-def]
            found = super().detect(x_HWC)
            return found if self.looked[-1] >= 600 else found[:1]

    x_HWC = portrait(1200, 800, faces=2)
    one, two, three = Crowd(100), Crowd(100), Crowd(100)
    assert len(find_faces(one, x_HWC)) == 1
    assert len(find_faces(two, x_HWC, wanted=2)) == 2
    assert len(find_faces(three, x_HWC, wanted=3)) == 2
    assert (one.looked, two.looked, three.looked) == ([128], [128, 320, 640], [128, 320, 640, 1024])


def test_no_larger_size_is_tried_than_memory_allows() -> None:
    engine = Counting(10_000)
    assert find_faces(engine, portrait(2000, 1000), most_px=640) == []
    assert engine.looked == [128, 320, 640]


def test_a_larger_look_must_be_affordable(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "far.png", portrait(1200, 800))
    for left, looked in ((0, [128]), (detection_bytes(640), [128, 320, 640]), (2**40, [128, 320, 640, 1024])):
        engine, answers = Counting(10_000), iter((2**40, left))  # for reading the picture, and then
        closer = "no room for a closer look" if looked[-1] < 1024 else "seen from the front"
        with pytest.raises(BadValues, match=closer):
            describe(engine, [path], lambda free=answers: next(free))
        assert engine.looked == looked
        assert affordable_px(left) == looked[-1]


def test_the_largest_face_is_taken_and_the_others_are_said() -> None:
    faces = find_faces(StandIn(), portrait(300, 120, faces=2))
    assert faces[0].area > faces[1].area
    face, warning = the_face(faces, "a.png")
    assert face is faces[0]
    assert "2 faces" in warning


def test_no_face_is_said_with_a_mend() -> None:
    with pytest.raises(BadValues, match=r"No face was found in a\.png"):
        the_face(find_faces(StandIn(), np.zeros((64, 64, 3), np.uint8)), "a.png")


def test_another_face_has_other_numbers_and_the_same_has_the_same() -> None:
    engine = StandIn()
    numbers = [engine.embed(x, engine.detect(x)[0]) for x in (portrait(), portrait(), portrait(colour=90))]
    assert np.array_equal(numbers[0], numbers[1])
    assert np.abs(numbers[0] - numbers[2]).max() > 0.1


@given(angle=st.floats(-3, 3), scale=st.floats(0.2, 5), dx=st.floats(-50, 50), dy=st.floats(-50, 50))
def test_alignment_finds_every_rotation_scale_and_shift(
    angle: float, scale: float, dx: float, dy: float
) -> None:
    points = np.array([[30, 50], [70, 50], [50, 70], [40, 90], [60, 90]], np.float32)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(points, points @ turn.T + (dx, dy))
    assert np.allclose(matrix, np.column_stack([turn, (dx, dy)]), atol=1e-3)


def test_keypoints_are_drawn_as_published_at_their_size() -> None:
    points = np.array([[400, 400], [600, 400], [500, 500], [420, 600], [580, 600]], np.float32)
    x_HWC = keypoint_picture([Face((350, 350, 650, 650), points, 1)], 1024, 1024)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    assert [tuple(x_HWC[int(y), int(x)]) for x, y in points] == colours
    assert tuple(x_HWC[450, 450]) == (153, 0, 0)  # the bar from the left eye, at six tenths
    assert x_HWC[400, 410].any()
    assert not x_HWC[400, 412].any()  # dots have a radius of ten pixels
    assert not x_HWC[:300].any()


def test_strokes_grow_with_the_picture() -> None:
    points = np.array([[400, 400], [600, 400], [500, 500], [420, 600], [580, 600]], np.float32)
    face = Face((350, 350, 650, 650), points, 1)
    small = keypoint_picture([face.scaled(0.5)], 512, 512)
    large = keypoint_picture([face], 1024, 1024)
    assert abs((large.any(-1).mean() / small.any(-1).mean()) - 1) < 0.2  # a quarter would be half


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.floats(0, 60), st.floats(4, 40), st.floats(4, 40)),
        min_size=1,
        max_size=4,
    )
)
def test_no_pixel_belongs_to_two_people(boxes: list[tuple[float, float, float, float]]) -> None:
    faces = [Face((x, y, x + w, y + h), np.zeros((5, 2), np.float32), 1) for x, y, w, h in boxes]
    masks = face_masks(faces, 64, 80)
    assert masks.shape == (len(faces), 64, 80)
    assert masks.sum(0).max() <= 1
    assert set(np.unique(masks)) <= {0.0, 1.0}
