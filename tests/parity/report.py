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

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

from kit import KIT, TOLERANCE, Case, Weights, cases, deviation  # noqa: E402
from reelstack import extract_video  # noqa: E402
from reelstack.provenance import library_versions  # noqa: E402
from tabulate import tabulate  # noqa: E402

HEADERS = ("model", "video", "settings", "features", "max\\|Δ\\| / std")
INTRODUCTION = """# Parity with video_features

Written by `python tests/parity/report.py`; `tests/parity/test_parity.py` checks the same numbers.

The references are what [video_features](https://github.com/v-iashin/video_features) (commit
a2f61b7) computes on a CPU from these videos. The weights are not the published ones but random
tensors under the published names and shapes, so that every step from the file to the feature
counts and nothing has to be downloaded. A reference is met if the shapes are equal and
max|Δ| / std, with the standard deviation of the whole reference, is less than {tolerance:g};
for the frame-wise models the time stamps and the frame rate agree to 1e-6 too.
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
    worst: dict[str, float] = {}
    missed = 0
    for case, shape, off in measure(options.device):
        rows.append((case.model, case.media.name, case.label, shape, f"{off:.1e}"))
        worst[case.model] = max(off, worst.get(case.model, 0.0))
        missed += off >= TOLERANCE
        print(*rows[-1], sep="  ", flush=True)
    text = page(rows, missed, device=options.device)
    if not options.print:
        (REPO / "docs" / "parity.md").write_text(text)
    return missed


def measure(device: str) -> Iterator[tuple[Case, str, float]]:
    """Every reference with the shape of its features and how far ours are off."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Weights(Path(folder))
        for case in cases():
            features = extract_video(
                case.media,
                model=case.model,
                weights=weights[case.model],
                device=device,
                **case.windowing,
            ).streams["rgb"]
            shape = " × ".join(map(str, features.shape))
            yield case, shape, deviation(features, case.features)


def page(rows: list[tuple[str, ...]], missed: int, *, device: str) -> str:
    """The text of docs/parity.md."""
    versions = library_versions("torch", "torchvision", "av", "pillow", "numpy")
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    return (
        f"{INTRODUCTION.format(tolerance=TOLERANCE)}\n"
        f"{len(rows) - missed} of {len(rows)} references are met.\n"
        f"Measured on {date.today().isoformat()} on {device} in fp32 with\n{listed}.\n\n{table}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
