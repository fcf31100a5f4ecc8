"""The errors Reelstack raises on purpose; their text names the thing, the value and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

VIDEO_STATUSES = (
    "ok",
    "truncated",
    "too_short",
    "no_audio",
    "unreadable",
    "no_video",
    "missing",
    "timeout",
)
"""Every status a manifest row can have. `truncated` rows keep the features of the readable part."""

BROKEN_STATUSES = ("truncated", "unreadable", "no_video", "missing", "timeout")
"""The statuses that `strict: true` turns into a failed job."""


UNUSABLE_STATUSES = tuple(status for status in BROKEN_STATUSES if status != "truncated")
"""The statuses of videos that no frame can be had of."""


class ReelstackError(Exception):
    """Base class: an error of the user's input or of the machine, not of the program."""


class ConfigError(ReelstackError):
    """The configuration is not valid."""


class WeightsError(ReelstackError):
    """A checkpoint is missing, corrupt or of another model."""


class DeviceError(ReelstackError):
    """No device that fits the request."""


class StoreError(ReelstackError):
    """A store, a part or a manifest is missing or inconsistent."""


class VideoError(ReelstackError):
    """One video cannot be used; becomes a manifest row with `status` and never ends a shard.

    Attributes:
        status: one of `VIDEO_STATUSES` except "ok".
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status

    def about(self, path: object) -> VideoError:
        """The same error with a message that begins with the path."""
        text = str(self)
        return self if text.startswith(str(path)) else VideoError(self.status, f"{path}: {text}")


def nearest(value: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest allowed spelling, or an empty string."""
    names = list(allowed)
    longer = [name for name in names if value and name.startswith(value)]
    close = longer or difflib.get_close_matches(value, names, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
