"""Batch norm folded into the convolution before it: fewer passes over the activations."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm into the convolution right before it, in place (inference only)."""
    previous_name, previous = "", None
    for name, child in list(module.named_children()):
        # of torch's own kind only: timm's norms contain an activation
        own = type(child).__module__.startswith("torch.nn")
        if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)) and own and previous is not None:
            owner, attribute, convolution = _last_convolution(module, previous_name, previous)
            if convolution is not None:
                setattr(owner, attribute, fuse_conv_bn_eval(convolution, child))
                setattr(module, name, nn.Identity())
                continue
        fold_batch_norm(child)
        previous_name, previous = name, child


def _last_convolution(
    owner: nn.Module, name: str, child: nn.Module
) -> tuple[nn.Module, str, nn.Conv2d | nn.Conv3d | None]:
    """The convolution whose output `child` returns unchanged, and where it hangs."""
    while isinstance(child, nn.Sequential) and len(child):
        owner, (name, child) = child, list(child.named_children())[-1]
    return owner, name, child if isinstance(child, (nn.Conv2d, nn.Conv3d)) else None
