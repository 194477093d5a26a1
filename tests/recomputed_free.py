"""The numbers that the claims on unconstrained features are about, by their definitions. Part of the judge of
recomputed.py.

Least objectives are found by minimising over explicit matrices, not by the formulas of nclab.theory.
"""

import math
from functools import cache
from itertools import combinations

import numpy as np
from recomputed_continual import STATISTICS
from recomputed_runs import Statistic, last, read_by_classifier
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

# Least objectives of one shape: H, W_1 ... W_L are fixed matrices, each times a factor of its own


def loss_of(name, x, output, labels):
    """The mean loss of x times the output (C, N), and its derivative after x."""
    z, n = x * output, output.shape[1]
    if name == "mse":
        return np.sum((z - labels) ** 2) / (2 * n), np.sum((z - labels) * output) / n
    return -np.sum(labels * log_softmax(z, axis=0)) / n, np.sum((softmax(z, axis=0) - labels) * output) / n


def least(matrices, relu, loss, penalties):
    """The least of loss + sum of penalty/2 |matrix|^2 over the factors of H, W_1 ... W_L, zero included."""
    output = matrices[0]
    for i, matrix in enumerate(matrices[1:], 1):
        output = matrix @ output
        output = np.maximum(output, 0) if relu and i < len(matrices) - 1 else output
    classes = len(output)
    labels = np.kron(np.eye(classes), np.ones(output.shape[1] // classes))
    costs = np.array([p * np.sum(m**2) / 2 for p, m in zip(penalties, matrices, strict=True)])

    def objective(t):
        x = math.exp(np.sum(t))
        value, slope = loss_of(loss, x, output, labels)
        paid = costs * np.exp(2 * t)
        return value + np.sum(paid), slope * x + 2 * paid

    starts = [(log_x - 0.5 * np.sum(np.log(1 / costs))) / len(costs) - 0.5 * np.log(costs) for log_x in range(-3, 4)]
    found = [minimize(objective, start, jac=True, options={"gtol": 1e-11}).fun for start in starts]
    return min(loss_of(loss, 0.0, output, labels)[0], *found)


def repeated(matrix, n):
    return np.kron(matrix, np.ones((1, n)))


@cache
def collapse(classes, n, depth, loss, relu, weight, features):
    """All class means and weights a simplex ETF, or orthogonal where the loss is squared."""
    square = np.eye(classes) - (loss == "cross_entropy") / classes
    return least([repeated(square, n)] + [square] * depth, relu, loss, [features] + [weight] * depth)


@cache
def graph(vertices, n, depth, decay):
    """The strongly regular graph: classes are the pairs of vertices."""
    pairs = [*combinations(range(vertices), 2)]
    incident = np.array([[float(v in pair) for pair in pairs] for v in range(vertices)])
    u, s, vt = np.linalg.svd(repeated(incident, n), full_matrices=False)
    middle = [np.eye(vertices)] * (depth - 3)
    matrices = [np.diag(np.sqrt(s)) @ vt, u @ np.diag(np.sqrt(s)), *middle, incident.T - 0.5, np.eye(len(pairs))]
    return least(matrices, True, "mse", [decay] * (depth + 1))


def shape_of(run):
    keys = run.settings
    weight = keys["loss.l2"]
    features = weight if keys.get("loss.l2_features") is None else keys["loss.l2_features"]
    return keys["dataset.classes"], keys["dataset.per_class"], weight, features


def objective_at_end(run):
    return run.column("loss")[run.end, "network"] + run.column("l2_penalty")[run.end, "network"]


# One layer: Zhu et al. 2021


def softened(name, softness, z, label):
    """The loss of the logits z of one sample; softness: the gamma of the focal loss, the share of label smoothing."""
    if name == "mse":
        return np.sum((z - np.eye(len(z))[label]) ** 2) / 2
    logs = log_softmax(z)
    if name == "focal":
        return -((1 - math.exp(logs[label])) ** softness) * logs[label]
    return -(1 - softness) * logs[label] - softness * logs.mean()


@cache
def other_loss(name, softness, classes, n, weight, features, of_bias):
    """The least objective of class means and weights that are one simplex ETF, beside a bias of equal entries."""
    square = np.eye(classes) - 1 / classes

    def objective(x):
        h, w, b = math.exp(x[0]), math.exp(x[1]), x[2]
        size = np.sum(square**2)
        paid = (features * n * h**2 * size + weight * w**2 * size + of_bias * classes * b**2) / 2
        return softened(name, softness, h * w * square[0] + b, 0) + paid

    exact = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 5000, "maxfev": 5000}
    return min(minimize(objective, [a, a, 0.0], method="Nelder-Mead", options=exact).fun for a in (0.0, 0.7, 1.4))


def optimum_gap(run, treated):
    classes, n, weight, features = shape_of(run)
    keys, name = run.settings, run.settings["loss.name"]
    if name != "cross_entropy":
        softness = keys.get("loss.gamma", keys.get("loss.smoothing"))
        best = other_loss(name, softness, classes, n, weight, features, keys["loss.l2_biases"])
        return abs(objective_at_end(run) - best)
    reached = objective_at_end(run)
    if run.settings["etf.name"] == "last_k":  # the fixed weight pays as well
        reached += weight / 2 * classes * (run.settings["etf.classifier_scale"] or 1.0) ** 2
    return abs(reached - collapse(classes, n, 1, "cross_entropy", False, weight, features))


def of_network(metric, epoch=None):
    return Statistic(lambda run, _: run.column(metric)[run.end if epoch is None else epoch, "network"])


# Several layers: Sukenik et al. 2024, Garrod and Keating 2024


def over_dnc(run, treated):
    keys = run.settings
    classes, n, weight, features = shape_of(run)
    relu = keys["model.activation"] == "relu"
    return objective_at_end(run) / collapse(classes, n, keys["model.depth"], keys["loss.name"], relu, weight, features)


def free_rank(run, treated):
    """The least number of singular values of the class means above a hundredth of the first, before the classifier."""
    values = {}
    for i in range(1, run.settings["dataset.classes"] + 1):
        for (epoch, layer), value in run.column(f"means_singular_{i}").items():
            if epoch == run.end:
                values.setdefault(layer, []).append(value)
    before = [layer["layer"] for layer in run.layers if layer["role"] != "classifier" and layer["layer"] in values]
    return float(min(sum(s > 0.01 * values[name][0] for s in values[name]) for name in before))


def ends_at_dnc(run, treated):
    classes, keys = run.settings["dataset.classes"], run.settings
    linear = keys["model.activation"] == "none" or keys["model.depth"] == 1
    full = classes - 1 if linear and keys["loss.name"] == "cross_entropy" else classes
    return float(abs(over_dnc(run, None) - 1) <= 0.01 and free_rank(run, None) >= full)


def graph_over_dnc(best, least_vertices, depths):
    def value(run, treated):
        _, n, decay, _ = shape_of(run)
        return best(
            graph(r, n, depth, decay) / collapse(r * (r - 1) // 2, n, depth, "mse", True, decay, decay)
            for depth in depths
            for r in range(least_vertices, 8)
        )

    return Statistic(value, measured=False)


# Hadamard initialisation: Garrod et al. 2025


def course(run, metric):
    return np.array([value for (_, layer), value in sorted(run.column(metric).items()) if layer == "network"])


def singular(run):
    return np.stack([course(run, f"s_{i}") for i in range(run.settings["dataset.classes"])], axis=1)


def on_face(run):
    return np.arange(1, 1 + run.settings["model.face"])


def off_flow(run, treated):
    """Gradient descent against ds/dt = (2/K) s (1 - sigma), integrated in log(1 + t) by an Adams or BDF method."""
    keys, s = run.settings, singular(run)
    k = s.shape[1]
    start = np.maximum(s[0], 0)
    if not keys["model.beside"]:
        start[on_face(run)] = 0
    moving = start > 0
    phi = np.array([[(-1.0) ** (i & j).bit_count() for j in range(k)] for i in range(k)])

    def rates(v, y):
        full = np.zeros(k)
        full[moving] = np.exp(y)
        p = softmax(phi @ full / k)  # of the first sample: the others are the same but for their order
        return (2 / k * ((1 - phi) @ p) * math.exp(v))[moving]

    gammas = keys["schedule.gamma"] ** np.arange(run.end)
    times = np.concatenate([[0.0], np.cumsum(keys["optimizer.lr"] * keys["sampler.repeats"] * gammas)])
    at = np.log1p(times[sorted({epoch for epoch, _ in run.column("s_0")})])
    found = solve_ivp(rates, (0, at[-1]), np.log(start[moving]), "LSODA", at, rtol=1e-12, atol=1e-12)
    return float(np.abs(s[:, moving] / np.exp(found.y.T) - 1).max())


def lyapunov_rise(run, treated):
    return (run.settings["dataset.classes"] - 1) * float(np.diff(course(run, "lyapunov")).min())


def cosine_fall(run, treated):
    values = course(run, "etf_cosine")
    return max(values[i] - min(values[i:]) for i in range(len(values)))


def inequality(run, treated):
    ends = singular(run)[-1, 1:]
    return ends.max() / ends.min() - 1


def face_share(run):
    s, face = singular(run), on_face(run)
    rest = [i for i in range(1, s.shape[1]) if i not in face]
    return np.abs(s[:, face]) / s[:, rest].mean(axis=1, keepdims=True)


# The nearest simplex ETF: Markou et al. 2024


def first_step(metric, there, network=False):
    """The first measured step at which a number is where it should be; one more than there are if it never is."""

    def value(run, treated):
        where = "network" if network else read_by_classifier(run)
        column = run.column(metric)
        return float(min((t for (t, layer), x in column.items() if layer == where and there(x)), default=run.end + 1))

    return Statistic(value)


STATISTICS |= {
    "optimum_gap": Statistic(optimum_gap, rounding=1e-14),
    "free_nc1_last": Statistic(last("nc1")),
    "free_nc2_last": Statistic(last("nc2_gram")),
    "free_nc3_last": Statistic(last("nc3")),
    "saddle_gradient": of_network("gradient_norm", 0),
    "saddle_curvature": of_network("hessian_least", 0),
    "end_curvature": of_network("hessian_least"),
    "objective_over_dnc": Statistic(over_dnc),
    "free_rank": Statistic(free_rank),
    "ends_at_dnc": Statistic(ends_at_dnc),
    "graph_over_dnc_deep": graph_over_dnc(max, 4, (4, 5)),
    "graph_over_dnc_three": graph_over_dnc(min, 3, (3,)),
    "hadamard_leakage": Statistic(lambda run, _: course(run, "leakage").max()),
    "hadamard_off_flow": Statistic(off_flow),
    "hadamard_lyapunov_rise": Statistic(lyapunov_rise),
    "hadamard_cosine_fall": Statistic(cosine_fall),
    "hadamard_inequality": Statistic(inequality),
    "hadamard_on_face": Statistic(lambda run, _: face_share(run).max()),
    "hadamard_off_face": Statistic(lambda run, _: (face_share(run)[-1] / face_share(run)[0]).min()),
    "steps_to_train_accuracy": first_step("accuracy", lambda value: value == 1, network=True),
    "steps_to_collapse": first_step("nc1", lambda value: value <= 0.01),
    "steps_to_trace_collapse": first_step("nc1_trace_ratio", lambda value: value <= 1),
    "last_log_nc1_trace_ratio": Statistic(lambda run, _: math.log10(last("nc1_trace_ratio")(run, None))),
    "last_log_nc1": Statistic(lambda run, _: math.log10(last("nc1")(run, None))),
    "last_log_nc3": Statistic(lambda run, _: math.log10(last("nc3")(run, None))),
}
