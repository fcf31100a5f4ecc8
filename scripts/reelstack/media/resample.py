"""Resampling of a stream to another sample rate, with the filter of resampy's `kaiser_best`.

J. O. Smith, "Digital Audio Resampling Home Page", https://ccrma.stanford.edu/~jos/resample/:
a windowed sinc, read from a table with linear interpolation. The ratio of two whole rates is
rational, so the weights repeat with a period; those of neighbouring outputs are the columns of a
matrix, which all periods of a block share.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

MIN_RATE, MAX_RATE = 100, 192_000
"""Hz. The weights take up to 0.2 GB, which only rates without a common divisor need; those of the
usual rates take 1 MB."""

_ZERO_CROSSINGS = 50
_TABLE_STEPS = 1 << 13
_ROLLOFF = 0.9173473712608761
_BETA = 12.984585247040012
"""resampy 0.4.3's `kaiser_best`: zero crossings on each side, table entries from one to the next,
cut-off as a share of the Nyquist frequency, and the shape of the Kaiser window."""

_GROUP = 32
"""Outputs that are computed together: more waste work on zeros, fewer are slower."""

_SINGLE_THREADED = 1 << 18
"""Multiplications up to which OpenBLAS does not share a product out among threads, which for such
small ones takes ten times longer (measured on two cores with other work)."""


class Resampler:
    """Resamples a signal pushed in pieces of any length; the result does not depend on them.

    N samples become ⌊N · target / rate⌋, of which number k is the signal at k / target seconds.
    Before its start and after its end the signal is silence.

    Args:
        rate: Hz, of what is pushed; `MIN_RATE` to `MAX_RATE`.
        target: Hz, of what comes back.

    Raises:
        ValueError: for a rate out of bounds.
    """

    def __init__(self, rate: int, target: int) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise ValueError(f"rate is {rate} Hz; allowed: {MIN_RATE} to {MAX_RATE}")
        self._rate, self._target = rate, target
        self._groups, taps = _weights(rate, target)
        self._up, self._down = _period(rate, target)
        self._reach = 2 * taps - 1
        largest = max(weights.size for _, weights in self._groups)
        self._block = max(1, _SINGLE_THREADED // largest)  # periods that are computed together
        self._pieces = [np.zeros(taps - 1, np.float32)]
        self._num_waiting = taps - 1
        self._num_pushed = self._num_given = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) samples → the outputs that they complete; some are held back until later."""
        if self._rate == self._target:
            return samples
        self._num_pushed += len(samples)
        return self._resampled(samples)

    def finish(self) -> NDArray[np.float32]:
        """The outputs that were held back at the signal's end."""
        left = self._num_pushed * self._target // self._rate - self._num_given
        num_blocks = ceil(left / (self._block * self._up))
        needed = num_blocks * self._block * self._down + self._reach
        silence = np.zeros(max(0, needed - self._num_waiting), np.float32)
        return self._resampled(silence)[:left]

    def _resampled(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The outputs of whole blocks, as far as there are inputs for them."""
        self._pieces.append(samples)
        self._num_waiting += len(samples)
        span = self._block * self._down
        num_blocks = max(0, self._num_waiting - self._reach) // span
        if num_blocks == 0:
            return np.empty(0, np.float32)
        buffer = np.concatenate(self._pieces)
        outputs = [self._block_outputs(buffer[span * number :]) for number in range(num_blocks)]
        self._pieces = [buffer[span * num_blocks :].copy()]
        self._num_waiting = len(self._pieces[0])
        self._num_given += num_blocks * self._block * self._up
        return np.concatenate(outputs)

    def _block_outputs(self, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = np.empty((self._block, self._up), np.float32)
        done = 0
        for first, weights in self._groups:
            windows = sliding_window_view(buffer, len(weights))[first :: self._down][: self._block]
            outputs[:, done : done + weights.shape[1]] = windows.astype(np.float64) @ weights
            done += weights.shape[1]
        return outputs.ravel()


def _period(rate: int, target: int) -> tuple[int, int]:
    """Outputs and inputs after which the weights repeat; whole groups if a period is short."""
    up, down = target // gcd(rate, target), rate // gcd(rate, target)
    repeats = ceil(_GROUP / up)
    return up * repeats, down * repeats


@lru_cache(maxsize=2)
def _weights(rate: int, target: int) -> tuple[list[tuple[int, NDArray[np.float64]]], int]:
    """Weights of a period, and how many inputs they reach before an output's time and after it.

    For each group of outputs: the input that the group starts at, counted from the first that
    the period's first output reads, and the matrix (inputs, outputs).
    """
    scale = min(1.0, target / rate)
    step = int(scale * _TABLE_STEPS)  # rounded down as in resampy
    table = _half_window() * scale
    taps = len(table) // step
    up, down = _period(rate, target)
    groups = []
    for first in range(0, up, _GROUP):
        inputs, past = np.divmod(np.arange(first, min(first + _GROUP, up)) * down, up)
        before = _read(table, scale * past / up, step, taps)
        after = _read(table, scale * (1 - past / up), step, taps)
        weights = np.zeros((inputs[-1] - inputs[0] + 2 * taps, len(inputs)))
        rows = (inputs - inputs[0]) + np.arange(2 * taps)[:, None]
        weights[rows, np.arange(len(inputs))] = np.concatenate([before[::-1], after])
        groups.append((int(inputs[0]), weights))
    return groups, taps


def _read(
    table: NDArray[np.float64], distance: NDArray[np.float64], step: int, taps: int
) -> NDArray[np.float64]:
    """(taps, outputs) from the table, at a distance in zero crossings and every `step` after it."""
    position = distance * _TABLE_STEPS
    entry = position.astype(np.int64)
    index = entry + np.arange(taps)[:, None] * step
    inside = index + step <= len(table)
    index = np.minimum(index, len(table) - 2)
    weights = table[index] + (position - entry) * (table[index + 1] - table[index])
    return np.where(inside, weights, 0.0)


def _half_window() -> NDArray[np.float64]:
    """The right half of the windowed sinc."""
    num = _ZERO_CROSSINGS * _TABLE_STEPS
    sinc = _ROLLOFF * np.sinc(_ROLLOFF * np.linspace(0, _ZERO_CROSSINGS, num + 1))
    half: NDArray[np.float64] = sinc * np.kaiser(2 * num + 1, _BETA)[num:]
    return half
