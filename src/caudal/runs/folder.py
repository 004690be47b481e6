"""A run on disk: one folder, fixed names, one owner at a time.

spec.toml      what was asked for            checkpoints/   to go on from
plan.json      what was promised             model/         the best model
scan.json      what the data turned out      tensorboard/   curves for TensorBoard
events.jsonl   what happened                 result.json    how it ended
report.html    all of it on one page
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, TextIO

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.runs.spec import RunSpec


class RunFolder:
    """Names of the files of a run, and reading and writing the small ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.toml"
        self.plan = path / "plan.json"
        self.scan = path / "scan.json"
        self.events = path / "events.jsonl"
        self.result = path / "result.json"
        self.report = path / "report.html"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.tensorboard = path / "tensorboard"
        self.examples = path / "examples"

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a run that was begun.

        Raises:
            UsageError: there is no run at `path`.
        """
        folder = cls(path)
        if not folder.spec.is_file():
            raise UsageError(
                _("{path} is no run.").format(path=path), _("Give the folder that `caudal train -o` wrote.")
            )
        return folder

    def check(self, spec: RunSpec) -> bool:
        """Whether an unfinished run of `spec` is here already.

        Raises:
            UsageError: the folder holds something else, another run, or one that is finished.
        """
        if self.spec.is_file():
            if not RunSpec.from_toml(self.spec).same_run(spec):
                raise UsageError(
                    _("{path} holds a run of another spec.").format(path=self.path),
                    _("Choose another folder with -o, or give the spec that is in it."),
                )
            if self.result.is_file():
                raise UsageError(
                    _("The run in {path} is finished.").format(path=self.path),
                    _("Choose another folder with -o to train again."),
                )
            return True
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(
                _("{path} exists and is no run.").format(path=self.path), _("Choose another folder with -o.")
            )
        return False

    def begin(self, spec: RunSpec) -> bool:
        """Make the folder for `spec`, or find the unfinished run of the same spec in it; see `check`.

        Returns whether the run was begun before.
        """
        again = self.check(spec)
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.spec, lambda part: part.write_text(spec.to_toml(), encoding="utf-8"))
        return again

    def lock(self) -> TextIO:
        """Own the folder until the returned file is closed; the system lets go when the owner dies.

        Raises:
            UsageError: another process owns it.
        """
        file = (self.path / ".lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "?"
            file.close()
            raise UsageError(
                _("Another process (number {owner}) is working in {path}.").format(
                    owner=owner, path=self.path
                ),
                _("Wait for it, or stop it."),
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def write_json(self, path: Path, values: Any) -> None:
        """Write one of the small files, whole or not at all."""
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))

    def read_json(self, path: Path) -> Any:
        """Read one of the small files."""
        return json.loads(path.read_text(encoding="utf-8"))
