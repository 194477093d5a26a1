"""Every collapse metric again, by the definitions: what nclab.metrics is held against."""

import numpy as np


def reference(h, y, num_classes, weight=None, bias=None, class_means=None):
    """The definitions, word for word, in numpy float64 with d x d covariances and pinv.

    h (N, d), y (N,); class_means (C, d) of the train split, where h may lack classes. -> column -> value
    """
    h, y = h.double().numpy(), y.numpy()
    n = len(h)
    mu = np.stack([h[y == c].mean(0) for c in range(num_classes)]) if class_means is None else class_means
    m = mu - mu.mean(0)
    z = h - mu[y]
    sigma_w, sigma_b = z.T @ z / n, m.T @ m / num_classes
    cut = num_classes * np.finfo(np.float64).eps  # relative to the largest eigenvalue, as in nclab
    a, b = np.triu_indices(num_classes, 1)  # every pair of classes
    v = np.array(
        [(z[y == c] ** 2).sum() / n_c if n_c else np.nan for c, n_c in enumerate(np.bincount(y, minlength=num_classes))]
    )
    norms = np.linalg.norm(m, axis=1)
    etf = (np.eye(num_classes) - 1 / num_classes) / np.sqrt(num_classes - 1)

    def gram_distance(g):
        return np.linalg.norm(g / np.linalg.norm(g) - etf)

    def orthogonal_distance(g):
        return np.linalg.norm(g / np.linalg.norm(g) - np.eye(num_classes) / np.sqrt(num_classes))

    nearest = np.array([((row - mu) ** 2).sum(1).argmin() for row in h])
    values = {
        "nc1": np.trace(sigma_w @ np.linalg.pinv(sigma_b, rcond=cut, hermitian=True)) / num_classes,
        "nc1_trace_ratio": np.trace(sigma_w) / np.trace(sigma_b),
        "cdnv": np.nanmean((v[a] + v[b]) / (2 * ((mu[a] - mu[b]) ** 2).sum(1))),
        "nc2_equinorm": norms.std() / norms.mean(),
        "nc2_equiangular": np.abs((m[a] * m[b]).sum(1) / norms[a] / norms[b] + 1 / (num_classes - 1)).mean(),
        "nc2_gram": gram_distance(m @ m.T),
        "ncc_accuracy": (nearest == y).mean(),
        "rank": np.linalg.matrix_rank(sigma_b, tol=cut * np.linalg.eigvalsh(sigma_b)[-1], hermitian=True),
    }
    if weight is not None:
        w = weight.double().numpy()
        logits = h @ w.T + (0 if bias is None else bias.double().numpy())
        values |= {
            "nc2_weight_gram": gram_distance(w @ w.T),
            "nc2_weight_orthogonal": orthogonal_distance(w @ w.T),
            "nc2_means_orthogonal": orthogonal_distance(mu @ mu.T),
            "nc3_cosine": 1 - ((h * w[y]).sum(1) / np.linalg.norm(h, axis=1) / np.linalg.norm(w[y], axis=1)).mean(),
            "nc3": np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)),
            "nc3_gram": gram_distance(w @ m.T),
            "nc4_mismatch": (logits.argmax(1) != nearest).mean(),
        }
        rows = np.linalg.norm(w, axis=1)
        values["nc2_weight_equinorm"] = rows.std() / rows.mean()
        angles = (w[a] * w[b]).sum(1) / rows[a] / rows[b] + 1 / (num_classes - 1)
        values["nc2_weight_equiangular"] = np.abs(angles).mean()
        if bias is not None:
            values["classifier_bias_collapse"] = np.linalg.norm(w @ mu.mean(0) + bias.double().numpy())
    return values
