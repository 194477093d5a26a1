"""What features are worth on classes that the network was not trained on: few-shot episodes, and a linear probe."""

from collections.abc import Iterator

import torch
from torch import Tensor

from nclab.metrics.geometry import NAN, power_of_two
from nclab.metrics.probing import linear_probe_accuracy

WAYS, QUERIES, EPISODES = 5, 15, 1000
AT_ONCE = 100  # episodes that are evaluated as one batch


def few_shot_accuracy(
    features: Tensor,
    labels: Tensor,
    shots: int,
    ways: int = WAYS,
    queries: int = QUERIES,
    episodes: int = EPISODES,
    seed: int = 0,
) -> tuple[float, float]:
    """(accuracy, its standard error over episodes) of the nearest class mean of `shots` samples a class.

    An episode draws classes, and of each class `shots` samples, whose mean stands for the class, and other samples as
    queries: one is right where the nearest mean (Euclidean) is that of its class. The error is std / sqrt(episodes),
    of the draw alone: episodes share samples. 1 at collapse of these classes. Protocol of Snell 2017, 5 ways, 15
    queries a class.

    Args:
        features, labels: (N, d) and (N,), integers from 0 on, of the classes that episodes are drawn from.
        ways: classes of an episode; all of them, where there are fewer.
        queries: a class; fewer, where the smallest class has not so many beside its shots.
        seed: of the draw; with the same labels the same episodes.

    Returns: nan where a feature is not finite, a class has no query beside its shots, or there is one class.

    >>> features = torch.eye(3).repeat(4, 1)
    >>> few_shot_accuracy(features, torch.arange(3).repeat(4), shots=1, episodes=10)
    (1.0, 0.0)
    """
    h = features.detach().double().cpu()
    counts = labels.cpu().bincount()
    counts = counts[counts > 0]
    queries = min(queries, int(counts.min()) - shots)
    if len(counts) < 2 or queries < 1 or not torch.isfinite(h).all():
        return NAN, NAN
    h = h * power_of_two(h)
    found = []
    for support, query in episodes_of(labels.cpu(), shots, min(ways, len(counts)), queries, episodes, seed):
        means = h[support].mean(2)  # (e, ways, d)
        distances = torch.cdist(h[query].flatten(1, 2), means, compute_mode="donot_use_mm_for_euclid_dist")
        own = torch.arange(query.shape[1]).repeat_interleave(queries)  # (ways * queries,)
        found.append((distances.argmin(2) == own).double().mean(1))
    each = torch.cat(found)
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


def episodes_of(
    labels: Tensor, shots: int, ways: int, queries: int, episodes: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the support (e, ways, shots) and of the queries (e, ways, queries), up to 100 episodes e at once.

    Every class has shots + queries samples at least, and there are `ways` of them."""
    generator = torch.Generator().manual_seed(seed)
    members = [(labels == label).nonzero().flatten() for label in labels.unique()]
    longest = max(map(len, members))
    rows = torch.stack([torch.nn.functional.pad(own, (0, longest - len(own)), value=-1) for own in members])  # (C, n)
    for start in range(0, episodes, AT_ONCE):
        count = min(AT_ONCE, episodes - start)
        classes = torch.rand(count, len(rows), generator=generator).argsort(1)[:, :ways]  # (e, ways)
        own = rows[classes]  # (e, ways, n)
        keys = torch.rand(own.shape, generator=generator).masked_fill(own < 0, 2.0)  # padding comes last
        drawn = own.gather(2, keys.topk(shots + queries, dim=2, largest=False).indices)
        yield drawn[..., :shots], drawn[..., shots:]


def half_probe_accuracy(features: Tensor, labels: Tensor) -> float:
    """`linear_probe_accuracy` of half of the samples, trained on the other half: of every class its first, third, ...
    sample is trained on.

    Args:
        features, labels: (N, d) and (N,).

    Returns: nan where a feature is not finite, there is one class, or no second sample of any.
    """
    fitted = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        fitted[(labels == label).nonzero().flatten()[::2].cpu()] = True
    if fitted.all():
        return NAN
    return linear_probe_accuracy(features[fitted], labels[fitted], features[~fitted], labels[~fitted])
