"""Everything that defines a picture that is asked for, but for files: the record that is stored with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from caudal.core.config import Frozen
from caudal.core.errors import UsageError
from caudal.core.messages import _

Scheduler = Literal["default", "euler", "heun", "deis", "dpm++", "dpm++ sde", "lcm"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Strength = Annotated[float, Field(ge=0, le=1.5, allow_inf_nan=False)]
PIXELS_A_LATENT = 8
LCM_STEPS, LCM_GUIDANCE = 8, 1.5


class GenerationRequest(Frozen):
    """A picture, or `count` of them whose seeds follow each other.

    Strengths of 0 leave a part out. `batch` pictures go through the networks at once. A size of `None`
    follows the pose picture, or is 1024. With `face_region` the identity acts on the boxes of faces alone,
    and the rest follows the prompt.
    """

    prompt: str
    negative: str = ""
    style: str = "none"
    width: int | None = Field(default=None, ge=64, le=8192)
    height: int | None = Field(default=None, ge=64, le=8192)
    steps: int = Field(default=30, ge=1, le=500)
    guidance: float = Field(default=5.0, ge=0, le=50)
    seed: int = Field(default=0, ge=0, lt=2**63)
    count: int = Field(default=1, ge=1, le=10_000)
    batch: int = Field(default=1, ge=1, le=64)
    identity_strength: Strength = 0.8
    adapter_strength: Strength = 0.8
    control_strengths: dict[str, Strength] = Field(default_factory=dict)
    identity_end: float = Field(default=1.0, gt=0, le=1)
    face_region: bool = False
    scheduler: Scheduler = "default"
    precision: Precision = "auto"

    @field_validator("width", "height")
    @classmethod
    def _whole_latents(cls, side: int | None) -> int | None:
        if side is not None and side % PIXELS_A_LATENT:
            below = side - side % PIXELS_A_LATENT
            raise ValueError(
                _("{side} is not divisible by 8; {below} and {above} are").format(
                    side=side, below=below, above=below + PIXELS_A_LATENT
                )
            )
        return side

    @model_validator(mode="after")
    def _both_sides(self) -> GenerationRequest:
        if (self.width is None) != (self.height is None):
            raise ValueError(_("width and height are given together or not at all"))
        return self

    @property
    def guided(self) -> bool:
        """Whether each step looks at the picture without the prompt, too: twice the work."""
        return self.guidance > 1

    def rows(self) -> int:
        """Rows of a step's batch."""
        return min(self.batch, self.count) * (2 if self.guided else 1)


def lcm(request: GenerationRequest) -> GenerationRequest:
    """The same picture in the few steps of a latent consistency model, where the user did not set them.

    Raises:
        UsageError: another scheduler was asked for.
    """
    if request.scheduler not in ("default", "lcm"):
        raise UsageError(
            _("Few steps (LCM) go by the scheduler lcm, and “{name}” was asked for.").format(
                name=request.scheduler
            ),
            _("Leave the scheduler out, or the few steps."),
        )
    given = request.model_fields_set
    return request.model_copy(
        update={
            "scheduler": "lcm",
            "steps": request.steps if "steps" in given else LCM_STEPS,
            "guidance": request.guidance if "guidance" in given else LCM_GUIDANCE,
        }
    )


def size_text(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT as numbers.

    Raises:
        UsageError: it is no size, or a side is not divisible by 8.
    """
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 2 or not all(side.strip().isdigit() for side in sides):
        raise UsageError(_("“{text}” is no size.").format(text=text), _("Write it like 1024x1024."))
    for side in map(int, sides):
        if side % PIXELS_A_LATENT:
            below = side - side % PIXELS_A_LATENT
            raise UsageError(
                _("{side} is not divisible by {unit}.").format(side=side, unit=PIXELS_A_LATENT),
                _("{below} and {above} are.").format(below=below, above=below + PIXELS_A_LATENT),
            )
    return int(sides[0]), int(sides[1])
