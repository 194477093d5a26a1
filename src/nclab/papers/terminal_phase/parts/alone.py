"""What suites that keep samples ask for: one process, which sees all of a split."""

from torch import Tensor, distributed, nn

from nclab.metrics.suite import Context


def require_one_process(suite: str) -> None:
    """Raise ValueError where several processes share a split."""
    if distributed.is_initialized() and (count := distributed.get_world_size()) > 1:
        raise ValueError(f"metrics.suite: {suite} keeps samples of a whole split: expected one process, got {count}")


def head(context: Context) -> nn.Module:
    """The classifier: its weight is (C, d), its bias (C) or None."""
    return context.model.etf_sites()[context.model.classifier]


def weight_and_bias(context: Context) -> tuple[Tensor, Tensor | None]:
    """The classifier's weight (C, d) and bias (C) or None, float64 on the CPU."""
    layer = head(context)
    bias = layer.bias
    return layer.weight.detach().double().cpu(), None if bias is None else bias.detach().double().cpu()
