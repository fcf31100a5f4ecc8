"""Prints how far every reference is off, and writes it to docs/parity.md.

python tests/parity/report.py            # all references, on this machine's CPU
python tests/parity/report.py --print    # leave docs/parity.md as it is
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

from kit import (  # noqa: E402
    KIT,
    NETWORKS,
    TOLERANCE,
    Weights,
    cases,
    deviation,
    network_outputs,
)
from numpy.typing import NDArray  # noqa: E402
from reelstack import extract_video  # noqa: E402
from reelstack.provenance import library_versions  # noqa: E402
from tabulate import tabulate  # noqa: E402

HEADERS = ("model", "video", "settings", "output", "shape", "max\\|Δ\\| / std")
INTRODUCTION = """# Parity with video_features, mmaction2 and R2Plus1D-PyTorch

Written by `python tests/parity/report.py`; `tests/parity/test_parity.py` checks the same numbers.

The references are what [video_features](https://github.com/v-iashin/video_features) (commit
a2f61b7) computes on a CPU from these videos, and what the networks of mmaction2 (4d6c934) and of
R2Plus1D-PyTorch (09b55c6) compute from a test pattern. The weights are not the published ones but
random tensors under the published names and shapes, so that every step from the file to the
feature counts and nothing has to be downloaded. A reference is met if the shapes are equal and
max|Δ| / std, with the standard deviation of the whole reference, is less than {tolerance:g};
where the tool writes time stamps and a frame rate, they agree to 1e-6 too. Of I3D with a step
beyond the window, the tool goes on right after the window and its extra frame, whatever the step;
that reference is met with this step (17 for a window of 16), while Reelstack takes the step asked
for.
"""


def main() -> int:
    """Returns the number of references that are missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--print", action="store_true", help="do not write docs/parity.md")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda …")
    options = parser.parse_args()
    if not KIT.is_dir():
        sys.exit(f"error: the parity kit is not at {KIT}; set REELSTACK_PARITY to its folder")
    rows: list[tuple[str, ...]] = []
    missed = 0
    for *facts, off in measure(options.device):
        rows.append((*facts, f"{off:.1e}"))
        missed += off >= TOLERANCE
        print(*rows[-1], sep="  ", flush=True)
    text = page(rows, missed, device=options.device)
    if not options.print:
        (REPO / "docs" / "parity.md").write_text(text)
    return missed


def measure(device: str) -> Iterator[tuple[str, str, str, str, str, float]]:
    """Model, video, settings, output and shape of every reference, and how far ours are off."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Weights(Path(folder))
        for case in cases():
            features = extract_video(
                case.media,
                model=case.model,
                weights=weights.of(case),
                device=device,
                **case.options,
            )
            for stream, reference in case.features.items():
                off = deviation(features.streams[stream], reference)
                yield case.model, case.media.name, case.label, stream, _text(reference), off
        for name, model in NETWORKS.items():
            for output, (computed, reference) in network_outputs(name, weights, device).items():
                off = deviation(computed, reference)
                yield model, "(pattern)", "network only", output, _text(reference), off


def _text(array: NDArray[Any]) -> str:
    return " × ".join(map(str, array.shape))


def page(rows: list[tuple[str, ...]], missed: int, *, device: str) -> str:
    """The text of docs/parity.md."""
    versions = library_versions(
        "torch", "torchvision", "av", "pillow", "numpy", "timm", "open_clip_torch"
    )
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    return (
        f"{INTRODUCTION.format(tolerance=TOLERANCE)}\n"
        f"{len(rows) - missed} of {len(rows)} references are met.\n"
        f"Measured on {date.today().isoformat()} on {device} in fp32 with\n{listed}.\n\n{table}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
