"""Run folders of an archive, and the numbers of a run that claims are about, each by its definition.

A part of the independent judge, see recomputed.py.
"""

import json
import math
import re
import tarfile
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import yaml

from nclab.config.keys import IGNORE_MEASURES, with_later_keys


class Mismatch(AssertionError):
    """A verdict that the archive does not give."""


@dataclass
class Run:
    name: str
    files: dict[str, bytes]
    _columns: dict = field(default_factory=dict)

    @cached_property
    def config(self):
        return with_later_keys(yaml.load(self.files["config.yaml"], yaml.CSafeLoader))

    @cached_property
    def settings(self):
        """Dotted keys with their values, without those that mean nothing in this run."""
        flat = dict(dotted(self.config))
        dropped = {key for key in flat if self.frozen and re.match(r"etf\..*(frame|rank|scale)", key)}
        dropped |= {"model.ffn_norm"} if flat.get("model.name") == "vit" and flat.get("model.ratio") == 0 else set()
        return {key: value for key, value in flat.items() if key not in dropped}

    @property
    def frozen(self):
        return self.config["etf"].get("kind") == "frozen"

    @property
    def adapts(self):
        return self.config["etf"]["name"] not in IGNORE_MEASURES

    @property
    def seed(self):
        return self.config["seed"]

    @property
    def end(self):
        may_end = self.config.get("stop_at_loss") is not None and self.finished
        return self.summary["epochs"] if may_end else self.config["epochs"]

    @cached_property
    def events(self):
        return [json.loads(line) for line in self.files["events.jsonl"].splitlines()]

    @property
    def layers(self):
        return self.events[0]["layers"]

    @property
    def fixed(self):
        return {event["site"] for event in self.events if event["event"] == "switch"}

    @property
    def finished(self):
        return "DONE" in self.files

    @property
    def diverged(self):
        last = [event["event"] for event in self.events if event["event"] in ("diverged", "resume")][-1:]
        return not self.finished and last == ["diverged"]

    @cached_property
    def summary(self):
        return dict(dotted(json.loads(self.files["summary.json"])))

    def column(self, metric, split="train"):
        """{(epoch, layer): value}; nan for what was not measured is up to the caller."""
        if (metric, split) not in self._columns:
            lines = (line for line in self.files["metrics.csv"].decode().splitlines() if f",{metric}," in line)
            rows = (line.split(",") for line in lines)
            self._columns[metric, split] = {
                (int(row[0]), row[2]): float(row[4]) for row in rows if row[1] == split and row[3] == metric
            }
        return self._columns[metric, split]


def read_archive(file):
    """Every run of an archive that `nclab-runs pack` wrote."""
    files = defaultdict(dict)
    with tarfile.open(file, "r:xz") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            files[folder][name] = tar.extractfile(member).read()
    return [Run(name, content) for name, content in files.items()]


def dotted(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# Statistics: value(run, treated)


def accuracy(split):
    def value(run, treated):
        stated = run.summary[f"final.{split}.accuracy"]
        measured = run.column("accuracy", split).get((run.end, "network"), stated)
        if measured != stated:
            raise Mismatch(f"{run.name}: {split} accuracy {stated} in summary.json, {measured} in metrics.csv")
        return 100 * stated

    return value


def stages(run):
    return [layer["layer"] for layer in run.layers if layer["stage"] is not None]


def along_depth(run):
    """Train NCC in per cent at the end: every layer of an MLP, every block of a transformer without its head."""
    roles = {layer["layer"]: layer["role"] for layer in run.layers}
    names = stages(run)
    if "block" in roles.values():
        names = [name for name in names if roles[name] != "classifier"]
    return [100 * run.column("ncc_accuracy").get((run.end, name), math.nan) for name in names]


def ncc_drop(run, treated):
    ncc = along_depth(run)
    falls = [early - late for i, early in enumerate(ncc) for late in ncc[i + 1 :]]
    return max([0.0, *falls]) if np.isfinite(ncc).all() else math.nan


def ncc_rise(run, treated):
    ncc = along_depth(run)
    return ncc[-1] - ncc[0] if ncc and ncc[0] < 99 and np.isfinite(ncc).all() else math.nan


def layers_beyond_effective_depth(run, treated):
    if run.config["metrics"]["every"] == 0:
        return math.nan
    stated = run.summary["final.effective_depth"]
    names, ncc, eps = stages(run), run.column("ncc_accuracy"), run.config["metrics"]["eps"]
    found = set()
    for slack in (-1e-12, 1e-12):  # an accuracy of 1 - eps is on either side, by its last bit
        separated = [ncc.get((run.end, name), math.nan) >= 1 - eps + slack for name in names]
        found.add(next((i + 1 for i in range(len(names)) if all(separated[i:])), None))
    if stated not in found:
        raise Mismatch(f"{run.name}: effective depth {stated} in summary.json, {found} by its NCC")
    return 0.0 if stated is None else len(names) - stated


def before_etf(run):
    found = []
    for layer in run.layers:
        if layer["stage"] is not None:
            if run.fixed & set(layer["stage"]):
                return found
            found.append(layer["layer"])
    return []


def ncc_before_etf(run, treated):
    names = before_etf(treated)
    return 100 * run.column("ncc_accuracy").get((run.end, names[-1]), math.nan) if names else math.nan


def early_ncc(run, treated):
    names, ncc = before_etf(treated), run.column("ncc_accuracy")
    epochs = sorted({epoch for epoch, layer in ncc if 1 <= epoch <= run.end / 4 and layer in names})
    values = [100 * ncc.get((epoch, name), math.nan) for epoch in epochs for name in names]
    return float(np.mean(values)) if values else math.nan


def read_by_classifier(run):
    roles = [layer["role"] for layer in run.layers]
    at = roles.index("classifier_input") if "classifier_input" in roles else roles.index("classifier") - 1
    return run.layers[at]["layer"]


def last(metric):
    return lambda run, treated: run.column(metric).get((run.end, read_by_classifier(run)), math.nan)


def objective_change(run, treated):
    loss, penalty = run.column("loss"), run.column("l2_penalty")
    total = {epoch: value + penalty.get((epoch, "network"), 0.0) for (epoch, _), value in loss.items()}
    before = [epoch for epoch in total if epoch >= 1 and epoch <= 0.9 * run.end + 1e-9]
    if not before or not total.get(run.end, math.nan) > 0:
        return math.nan
    return 100 * abs(total[max(before)] - total[run.end]) / total[run.end]


@dataclass(frozen=True)
class Statistic:
    value: object
    split: str = ""  # of an accuracy: whose images it counts
    measured: bool = True  # while training, so that metrics.* is a part of the setting
    by_errors: bool = False  # a margin that is not stated follows from the errors of the baseline
    rounding: float = 0.0  # of the numbers that it is a difference of
    full: object = None  # whether a run lacks the number since nothing is left to be won


STATISTICS = {
    "test_accuracy": Statistic(accuracy("test"), "test", measured=False, by_errors=True),
    "train_accuracy": Statistic(accuracy("train"), "train", measured=False, by_errors=True),
    "saved_share": Statistic(
        lambda run, _: 100 * (1 - run.summary["parameters_learnable"] / run.summary["parameters_total"]),
        measured=False,
    ),
    "ncc_drop": Statistic(ncc_drop),
    "ncc_rise": Statistic(ncc_rise, full=lambda run: along_depth(run)[0] >= 99),
    "layers_beyond_effective_depth": Statistic(layers_beyond_effective_depth),
    "ncc_before_etf": Statistic(ncc_before_etf, "train"),
    "early_ncc": Statistic(early_ncc, "train"),
    "nc1_trace_ratio_last": Statistic(last("nc1_trace_ratio")),
    "nc2_weight_gram_last": Statistic(last("nc2_weight_gram")),
    "nc2_weight_orthogonal_last": Statistic(last("nc2_weight_orthogonal")),
    "nc3_cosine_last": Statistic(last("nc3_cosine")),
    "nc2_weight_gram_minus_orthogonal": Statistic(
        lambda run, treated: last("nc2_weight_gram")(run, treated) - last("nc2_weight_orthogonal")(run, treated)
    ),
    "objective_change": Statistic(objective_change),
}
