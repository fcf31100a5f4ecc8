"""A job's log file: everything it says, and why it failed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reelstack.errors import ReelstackError


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Log to `path` for the block; an error of the input ends the process with its text alone."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.captureWarnings(True)
    logging.basicConfig(
        filename=path,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        force=True,
    )
    try:
        yield
    except ReelstackError as error:
        logging.error("%s", error)
        sys.exit(f"error: {error}")
    except Exception:
        logging.exception("this is a bug or a failure of the machine")
        raise
