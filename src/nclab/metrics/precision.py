"""full_precision: float32 that is float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device_type: str, products_only: bool = False) -> Iterator[None]:
    """No autocast and no TF32 or bfloat16 products inside, whatever the caller trains with; no gradients either.

    Args:
        device_type: "cpu", "cuda" ...: the device whose autocast is switched off.
        products_only: leave convolutions and RNNs as they are, for a block that has none: half the time to enter.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    backends = (cuda.matmul, mkldnn.matmul)
    if not products_only:  # cuDNN computes these in TF32 unless told otherwise
        backends += (cudnn.conv, cudnn.rnn, mkldnn.conv, mkldnn.rnn)
    before = [b.fp32_precision for b in backends]
    for b in backends:
        b.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for b, precision in zip(backends, before, strict=True):
            b.fp32_precision = precision
