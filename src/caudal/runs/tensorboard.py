"""A run's events as curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from caudal.core.events import Event, MemoryRead, StepDone, Validated


class Curves:
    """Listens to events and writes TensorBoard files; one loss in ten steps is enough for a curve."""

    def __init__(self, folder: Path, every: int = 10) -> None:
        self._writer = SummaryWriter(str(folder))
        self._every = every
        self._step = 0

    def __call__(self, event: Event) -> None:
        """Add its figures to their curves."""
        if isinstance(event, StepDone):
            self._step = event.step
            if event.step % self._every == 0:
                self._add("train/loss", event.loss)
                self._add("train/learning_rate", event.learning_rate)
                self._add("train/samples_per_second", event.samples / event.step_seconds)
                self._add("train/stall", event.stall_seconds / event.step_seconds)
        elif isinstance(event, Validated):
            for name, value in event.metrics.items():
                if value is not None:
                    self._add(f"held_out/{name}", value)
        elif isinstance(event, MemoryRead):
            self._add("memory/ram_bytes", float(event.ram))
            if event.vram is not None:
                self._add("memory/vram_bytes", float(event.vram))

    def _add(self, name: str, value: float) -> None:
        self._writer.add_scalar(name, value, self._step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
