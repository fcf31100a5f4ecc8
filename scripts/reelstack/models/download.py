"""Downloads that resume where an earlier try ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

import requests
from tqdm import tqdm

from reelstack.errors import WeightsError

ATTEMPTS = 5
TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20


def download(
    url: str, path: Path, *, size_bytes: int | None = None, attempts: int = ATTEMPTS
) -> None:
    """Fetch `url` to `path`, resuming what an earlier try left in `<path>.part`.

    Raises:
        WeightsError: after `attempts` failures, with the last reason and the offline way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(1, attempts + 1):
        try:
            _fetch(url, part, size_bytes=size_bytes)
            os.replace(part, path)
            return
        except (requests.RequestException, OSError) as error:
            final = isinstance(error, requests.HTTPError) and error.response.status_code < 500
            if attempt == attempts or final:
                raise WeightsError(
                    f"{url} could not be downloaded ({error}). Without network: put the file at "
                    f"{path}, or name it in the config under `weights`."
                ) from error
            time.sleep(min(2.0**attempt, 30.0) / 2)


def _fetch(url: str, part: Path, *, size_bytes: int | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if have and answer.status_code == 416:
            part.unlink()  # longer than the file: a leftover of another version
            raise requests.ConnectionError("the partial download did not fit; starting over")
        answer.raise_for_status()
        resumed = answer.status_code == 206
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else size_bytes
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError(f"got {part.stat().st_size} of {total} bytes")
