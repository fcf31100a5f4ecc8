"""VGGish: a VGG network over log-mel spectrograms.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017.
Checkpoint: torchvggish, converted from TensorFlow's (AudioSet).
"""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

_CHANNELS = ((64,), (128,), (256, 256), (512, 512))
"""Of the convolutions before each pooling."""

_HIDDEN = 4096
FEATURE_DIM = 128


class VGGish(nn.Module):
    """(B, 1, 96, 64) log-mel examples, time by band, float32 → (B, 128), after the last ReLU.

    What the published pipeline does with it afterwards (PCA, 8 bits) is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for stage in _CHANNELS:
            for channels in stage:
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * before, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, FEATURE_DIM),
            nn.ReLU(),
        )

    @override
    def forward(self, examples: Tensor) -> Tensor:
        maps = self.features(examples)
        # Flattened as (height, width, channel), as TensorFlow stores them.
        features: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return features
