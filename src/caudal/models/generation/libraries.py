"""The optional packages of generation, imported when they are needed; a missing one is said with its mend."""

from __future__ import annotations

import logging
import os
import warnings
from importlib import import_module
from typing import Any

from caudal.core.errors import UsageError
from caudal.core.messages import _


def stay_offline() -> None:
    """Have libraries that could fetch models fetch nothing; `CAUDAL_ONLINE=1` lets them.

    To be called before the first of them is imported: they look once.
    """
    if os.environ.get("CAUDAL_ONLINE") != "1":
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def need(name: str) -> Any:
    """The package `name`, quiet and offline: nothing is fetched, whatever it is asked for.

    Raises:
        UsageError: it is not installed.
    """
    stay_offline()
    try:
        module = import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UsageError(
            _("Generation needs the package {name}, which is not installed.").format(name=package),
            _("Install it with: pip install 'caudal[generation]'"),
        ) from None
    for one in ("diffusers", "transformers"):
        logging.getLogger(one).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(diffusers|transformers)\..*")
    return module
