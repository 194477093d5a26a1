"""How the features of samples from outside the classes lie beside those of the classes."""

import torch
from torch import Tensor

from nclab.metrics.geometry import EPS, NAN, ClassMeans, power_of_two


def nc5(m: ClassMeans, ood_mean: Tensor) -> float:
    """Mean over classes of |cos(m_c, mu_OOD)|, m_c the centred class means of the train split and mu_OOD (d,) the mean
    feature of samples from outside the classes, not centred. 0 where these are orthogonal to what tells the classes
    apart. After Ammar 2024 (arXiv 2310.06823); some codes leave the class means uncentred, which gives other numbers.

    nan where a mean is mu_G itself, or mu_OOD is 0."""
    outside = ood_mean.detach().double().cpu()
    outside = outside * power_of_two(outside)
    norm, squares = outside.norm(), m.gram.diagonal()
    if m.rank == 0 or (squares <= m.cut).any() or not torch.isfinite(norm) or norm == 0:
        return NAN
    return float(((m.centred @ outside).abs() / squares.sqrt() / norm).mean())


def neco_auroc(train_features: Tensor, features: Tensor, ood_features: Tensor, num_classes: int) -> float:
    """Area under the ROC curve of the NECO score ||V^T (h - c)|| / ||h - c||, which should be higher of samples of the
    classes than of others. 1: they are told apart; 0.5: chance. Ammar 2024 (arXiv 2310.06823).

    c (d,) is the mean and V (d, k) the k = C - 1 leading principal components of the train features, as many as class
    means span at collapse. The authors choose k by network, divide each unit by its standard deviation, and multiply
    by the largest logit for some networks; neither is done here.

    Args:
        train_features: (N, d). features: (n, d) of other samples of the classes. ood_features: (o, d).
        num_classes: C.

    Returns: nan where a feature is not finite, equal features span nothing, or a feature is c itself, each up to the
    rounding of float64 (singular values and lengths below max(N, d) eps64 times those of the uncentred features).
    """
    from sklearn.metrics import roc_auc_score  # a second to import, and most commands do not need it

    train, inside, outside = (t.detach().double().cpu() for t in (train_features, features, ood_features))
    scale = power_of_two(train)
    centre = (scale * train).mean(0)
    centred = scale * train - centre
    if not torch.isfinite(centred).all():
        return NAN
    _, values, components = torch.linalg.svd(centred, full_matrices=False)
    rounding = max(train.shape) * EPS
    directions = int((values > rounding * torch.linalg.matrix_norm(scale * train)).sum())
    if directions == 0:
        return NAN
    components = components[: min(num_classes - 1, directions)]  # (k, d)

    def scores(rows: Tensor) -> Tensor:
        own = scale * rows - centre
        length = torch.linalg.vector_norm(own, dim=1)
        length = length.where(length > rounding * torch.linalg.vector_norm(centre), NAN)
        return torch.linalg.vector_norm(own @ components.T, dim=1) / length

    both = torch.cat([scores(inside), scores(outside)])
    if not torch.isfinite(both).all():
        return NAN
    labels = torch.arange(len(both)) < len(inside)
    return float(roc_auc_score(labels.numpy(), both.numpy()))
