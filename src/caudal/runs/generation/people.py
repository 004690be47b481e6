"""Who is in the picture and where: faces described, keypoints drawn, masks cut, from the pictures given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from caudal.core.errors import BadValues, UsageError
from caudal.core.messages import _
from caudal.runs.generation.pictures import Given, edges, fitted, placed, read_picture
from caudal.runs.generation.session import Sitting
from caudal.tasks.generation.faces import Face, FaceEngine, affordable_px, find_faces, the_face
from caudal.tasks.generation.keypoints import keypoint_picture
from caudal.tasks.generation.masks import face_masks

_MUCH = 2**62
Described = tuple[Face, np.ndarray[tuple[int], np.dtype[np.float32]], Given]


def describe(
    engine: FaceEngine, pictures: Sequence[str | Path], left: Callable[[], int]
) -> tuple[list[Described], list[str]]:
    """The face of each picture with its numbers, and what must be said of them. `left` gives free bytes.

    Raises:
        BadValues: a picture without a face.
        UnreadableFile: a picture that cannot be read.
    """
    found, warnings = [], []
    for path in pictures:
        given = read_picture(path, left())
        most_px = affordable_px(left())
        face, others = the_face(find_faces(engine, given.x_HWC, most_px), str(path), most_px)
        warnings += [*given.warnings, *([others] if others else [])]
        found.append((face, engine.embed(given.x_HWC, face), given))
    return found, warnings


def seat(
    engine: FaceEngine,
    people: Sequence[Described],
    width: int,
    height: int,
    *,
    pose: Given | None = None,
    controls: Sequence[str] = (),
    control_pictures: Mapping[str, Given] | None = None,
    face_region: bool = False,
    left: Callable[[], int] = lambda: _MUCH,
) -> Sitting:
    """Put people into a picture of this size, where faces are in `pose`, or in the one person's own picture.

    Several people need a pose picture with as many faces; they take them from left to right. With
    `face_region` the identity is kept to the boxes of faces. `left` gives free bytes.

    Raises:
        BadValues: the pose picture shows fewer faces than there are people.
        UsageError: several people and no pose, or a control without its picture.
    """
    shown = pose or people[0][2]
    if len(people) > 1 and pose is None:
        raise UsageError(
            _("{count} people were given and no picture that says where they are.").format(count=len(people)),
            _("Give a picture with as many faces with --pose."),
        )
    warnings: tuple[str, ...] = ()
    canvas, factor, shift = fitted(shown.x_HWC, width, height)
    if pose is None:
        places = [placed(people[0][0], factor, shift)]
    else:
        faces = find_faces(engine, pose.x_HWC, affordable_px(left()), wanted=len(people))
        if len(faces) < len(people):
            raise BadValues(
                _("{name} shows {count} faces, and {people} people were given.").format(
                    name=pose.name, count=len(faces), people=len(people)
                ),
                _("Give another pose picture, or fewer people."),
            )
        if len(faces) > len(people):
            warnings = (
                _("{name} shows {count} faces, and {people} people were given: the largest are used.").format(
                    name=pose.name, count=len(faces), people=len(people)
                ),
            )
        places = [placed(face, factor, shift) for face in faces[: len(people)]]
        places.sort(key=lambda face: face.box[0])
    guides = [keypoint_picture(places, height, width)]
    for kind in controls:
        given = (control_pictures or {}).get(kind)
        if given is not None:
            guides.append(fitted(given.x_HWC, width, height)[0])
        elif kind == "canny":
            guides.append(edges(canvas))
        else:
            raise UsageError(
                _("The ControlNet “{kind}” needs its picture.").format(kind=kind),
                _("Give it with --control-picture {kind}=FILE.").format(kind=kind),
            )
    masks_FHW = None
    if face_region:
        masks_FHW = face_masks(places, height, width, around=0.0)
    elif len(people) > 1:
        masks_FHW = face_masks(places, height, width)
    return Sitting(
        faces_FE=np.stack([numbers for _face, numbers, _given in people]),
        guides=tuple(guides),
        masks_FHW=masks_FHW,
        region_HW=masks_FHW.max(0) if face_region and masks_FHW is not None else None,
        warnings=warnings,
    )
