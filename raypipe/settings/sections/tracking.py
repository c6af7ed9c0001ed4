"""Where the curves of trainings are shown."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from raypipe.settings.sections.values import Section, no_credential


def _server(uri: str) -> str:
    if not re.match("https?://", no_credential(uri)):
        raise ValueError("must be the address of an MLflow server: http://HOST:5000")
    return uri


class Tracking(Section):
    """Where the curves of trainings are shown beside the report (training/trackers.py): numbers alone, never text. No
    step's output depends on it."""

    tensorboard: bool = True
    """Event files in the folders of the trainings: `tensorboard --logdir RUN`, with the package tensorboard."""
    mlflow: Annotated[str, AfterValidator(_server)] | None = None
    """An MLflow server, such as http://localhost:5000 (`pip install mlflow-skinny`). The password, if it asks for
    one, is MLflow's own environment's. None: none."""
    allow_remote: bool = False
    """Whether the numbers, and the names of run, arms and steps, may go to an MLflow server on another machine."""
    dev_scores: bool = False
    """Macro F1 on the dev labels after each epoch of every fine-tuning, for its curve. Takes the time to score all dev
    notes as often."""

    @model_validator(mode="after")
    def _stays_here(self) -> Tracking:
        host = urlsplit(self.mlflow or "").hostname
        if host not in (None, "localhost", "127.0.0.1", "::1") and not self.allow_remote:
            raise ValueError(f"mlflow: {host} is another machine; `allow_remote: true` lets the numbers go there")
        return self
