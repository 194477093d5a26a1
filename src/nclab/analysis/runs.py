"""Run folders as data: find them, read them, select among them, refuse to average what differs."""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nclab.analysis.labels import meaningless, policy_label, policy_order, said_by_label
from nclab.config.keys import MAY_DIFFER, ends_early, is_trial, not_of_its_folder, with_later_keys
from nclab.system.words import first_of
from nclab.system.written import is_finished

COLUMNS = ["epoch", "split", "layer", "metric", "value"]
LAYER_KEYS = {"layer", "role", "site", "stage"}
REQUIRED = ["seed", "epochs", "dataset.name", "model.name", "etf.name"]
SAFE_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # eight times as fast, where PyYAML was built with it
FLAGS = {"dataset.name": "--dataset", "epochs": "--epochs", "seed": "--seeds"}


class AnalysisError(ValueError):
    """What the user can mend: a wrong selection or a broken file. One line of text."""


@dataclass(frozen=True)
class Run:
    """One run folder; its files are read when first asked for."""

    path: Path
    config: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def policy(self) -> str:
        return policy_label(self.config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted keys, without those that mean nothing in this run."""
        return {key: value for key, value in flatten(self.config).items() if key not in meaningless(self.config)}

    @property
    def finished(self) -> bool:
        return is_finished(self.path)

    @property
    def trial(self) -> bool:
        """Whether it is of debug=fast or debug=overfit, and no evidence."""
        return is_trial(self.config)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """metrics.csv: epoch, split, layer, metric, value; layers appear in network order."""
        file = self.path / "metrics.csv"
        kinds = dict.fromkeys(["split", "layer", "metric"], "category")
        try:
            frame = pd.read_csv(file, dtype={"epoch": "int32", "value": "float64"} | kinds)
        except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
            raise AnalysisError(f"{file}: {_one_line(error)}") from None
        if list(frame.columns) != COLUMNS:
            raise AnalysisError(f"{file}: expected the header {','.join(COLUMNS)}, got {','.join(frame)}")
        torn = frame[[*kinds]].isna().any(axis=1)
        if torn.any() and self.finished:
            raise AnalysisError(f"{file}: line {torn.idxmax() + 2} is incomplete")
        frame = frame[~torn]  # the line that a running process is writing
        again = frame.duplicated(COLUMNS[:-1])
        if again.any():
            raise AnalysisError(f"{file}: line {again.idxmax() + 2} repeats an earlier measurement")
        return frame

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """events.jsonl: switches, resumes, the end; oldest first."""
        file = self.path / "events.jsonl"
        finished = self.finished  # before the lines are read: it may finish in between
        whole, _, rest = _text(file).rpartition("\n")
        text = f"{whole}\n{rest}" if finished else whole  # without the line that a running process is writing
        return [_json(line, f"{file}, line {i}") for i, line in enumerate(text.splitlines(), 1) if line]

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """Every probed layer in network order: layer (its name in metrics.csv), role, site (the linear layer whose
        output it is, or None), stage (the linear layers of the step of depth that ends there, or None)."""
        file = self.path / "events.jsonl"
        start = self.events[0] if self.events else {}
        if not isinstance(start.get("layers"), list):
            raise AnalysisError(f"{file}: no layers in the start event: written by an older version; train it again")
        for layer in start["layers"]:
            if not (isinstance(layer, dict) and layer.keys() >= LAYER_KEYS):
                raise AnalysisError(f"{file}: expected a layer with {', '.join(sorted(LAYER_KEYS))}, got {layer}")
        return start["layers"]

    @property
    def stages(self) -> list[str]:
        """Names of the layers that end a step of depth: every layer of an MLP, the blocks and the head of a ViT."""
        return [layer["layer"] for layer in self.layers if layer["stage"] is not None]

    @property
    def switches(self) -> set[tuple[str, int]]:
        """(layer, epoch) of everything that was fixed."""
        return {(event.get("site"), event.get("epoch")) for event in self.events if event.get("event") == "switch"}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json: final numbers, parameters, versions; of finished runs only."""
        file = self.path / "summary.json"
        return _json(_text(file), str(file))

    @property
    def end(self) -> int:
        """The last epoch: before the configuration's where training ended early."""
        return self.result("epochs") if self.finished and ends_early(self.config) else self.config["epochs"]

    def result(self, key: str) -> Any:
        """An entry of summary.json by its dotted name, e.g. 'final.test.accuracy'."""
        value = flatten(self.summary).get(key, self)
        if value is self:
            raise AnalysisError(f"{self.path / 'summary.json'}: no entry {key}")
        return value


def load_runs(
    folders: Iterable[Path | str],
    dataset: str | Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
    epochs: int | None = None,
    where: dict[str, Any] | None = None,
    finished_only: bool = True,
    skip_broken: bool = False,
    trials: bool = False,
) -> list[Run]:
    """The runs under `folders` (run, experiment or output folders) that meet every condition.

    `where` maps dotted configuration keys to values; a run without the key is kept (a baseline has no
    `etf.threshold`). Unfinished runs are named on stderr and left out, unless `finished_only` is false. A broken
    config.yaml is an error, or with `skip_broken` its run is named on stderr and left out. Runs of debug=fast and
    debug=overfit are no evidence: they are named on stderr and left out, unless `trials`.
    """
    folders = [Path(folder) for folder in folders]
    conditions = {
        "dataset.name": [dataset] if isinstance(dataset, str) else dataset,
        "epochs": None if epochs is None else [epochs],
        "seed": seeds,
    }
    conditions = {key: list(values) for key, values in conditions.items() if values is not None}
    conditions |= {key: [value] for key, value in (where or {}).items()}
    paths = {path.resolve(): path for folder in folders for path in _find(folder)}  # a folder given twice: once
    runs = []
    for path in paths.values():
        try:
            runs.append(Run(path, _config(path / "config.yaml")))
        except AnalysisError as error:
            if not skip_broken:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not trials and (left_out := [run for run in runs if run.trial]):
        runs = [run for run in runs if not run.trial]
        print(f"left out {len(left_out)} of debug=fast or debug=overfit: {_names(left_out)}", file=sys.stderr)
    flat = {run.path: run.settings for run in runs}
    for key in conditions:
        if runs and not any(key in settings for settings in flat.values()):
            raise AnalysisError(f"no run has a setting {key}; there are {', '.join(sorted(flat[runs[0].path]))}")
    chosen = [
        run
        for run in runs
        if all(
            key not in flat[run.path] or any(_equal(flat[run.path][key], value) for value in values)
            for key, values in conditions.items()
        )
    ]
    unfinished = [run for run in chosen if not run.finished]
    if finished_only and unfinished:
        chosen = [run for run in chosen if run.finished]
        print(f"skipped {len(unfinished)} unfinished: {_names(unfinished)}", file=sys.stderr)
    if not chosen:
        asked = "".join(f", {key} = {_values(values)}" for key, values in conditions.items())
        there = "; ".join(
            f"{key} = {_values(sorted({settings[key] for settings in flat.values()}))}"
            for key in ("dataset.name", "seed", "epochs")
        )
        have = f"{len(runs)} run(s) there, {sum(run.finished for run in runs)} finished: {there}"
        raise AnalysisError(
            f"no {'finished ' if finished_only else ''}run under {', '.join(map(str, folders))}{asked}"
            f" ({have if runs else 'no run folder there at all'})"
        )
    if seeds is not None:
        _tell_missing(chosen, conditions["seed"])
    return sorted(chosen, key=lambda run: (policy_order(run.policy), run.seed, str(run.path)))


def choose(runs: list[Run], policies: Iterable[str]) -> list[Run]:
    """The runs of the named policies, in the order of the names; a name without a run is an error."""
    there = {run.policy.lower(): run.policy for run in runs}
    chosen = []
    for name in dict.fromkeys(policy.strip().lower() for policy in policies):
        if name not in there:
            raise AnalysisError(f"no run of policy '{name}'; there are: {', '.join(there.values())}")
        chosen += [run for run in runs if run.policy.lower() == name]
    return chosen


def usual_policies(runs: list[Run], pattern: str, usual: str) -> list[str]:
    """The policies there whose whole name matches; none is an error that says what is `usual` and what is there."""
    there = list(dict.fromkeys(run.policy for run in runs))
    found = [policy for policy in there if re.fullmatch(pattern, policy)]
    if not found:
        raise AnalysisError(f"no run of the usual policies ({usual}); there are: {', '.join(there)}")
    return found


def differences(runs: list[Run]) -> dict[str, list[Any]]:
    """Settings besides seed and policy in which runs differ, with their values; empty: they may be averaged.

    In a group with a name (dataset, model, etf: here the policy's label) the other keys count only among runs
    of one name: MNIST and CIFAR-10 differ in `dataset.name`, whatever else that implies.
    """
    flat = [(run.settings | {"etf.name": run.policy}, said_by_label(run.policy)) for run in runs]
    found = {}
    for key in dict.fromkeys(key for settings, _ in flat for key in settings):
        group = key.split(".")[0]
        if MAY_DIFFER.match(key):
            continue
        by_name = defaultdict(dict)  # name of the group's choice -> the values of this key
        for settings, said in flat:
            if key in said:
                continue
            name = None if key == f"{group}.name" else settings.get(f"{group}.name")
            value = settings.get(key, "absent")
            by_name[name][repr(value)] = value
        differing = [values for values in by_name.values() if len(values) > 1]
        if differing:
            found[key] = list({text: value for values in differing for text, value in values.items()}.values())
    return found


def refuse_mixture(runs: list[Run], by: str | None = None) -> None:
    """Raise unless the runs differ in seed and policy alone, and each seed of a policy is there once.

    `by` is a setting whose values are drawn apart and never averaged over, such as model.blocks.
    """
    found = {key: values for key, values in differences(runs).items() if key != by}
    if found:
        keys = first_of((f"{key} = {_values(values)}" for key, values in found.items()), most=4, between="; ")
        key, values = next(iter(found.items()))
        hint = f"{FLAGS[key]} {values[-1]}" if key in FLAGS else f"--where {key}={values[-1]}"
        raise AnalysisError(f"runs that are compared must not differ in {keys}; choose, e.g. with {hint}")
    refuse_twins(runs, by)


def refuse_twins(runs: list[Run], by: str | None = None) -> None:
    """Raise if a seed of a policy (and of a value of `by`) occurs twice: it would count double."""
    seen = {}
    for run in runs:
        first = seen.setdefault((run.policy, run.seed, run.settings.get(by)), run.path)
        if first != run.path:
            raise AnalysisError(f"seed {run.seed} of {run.policy} is there twice: {first} and {run.path}")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys: {'a': {'b': 1}} -> {'a.b': 1}; lists are values."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _find(folder: Path, depth: int = 2) -> list[Path]:
    """Run folders in `folder`, at most `depth` levels down; hidden folders (.hydra) are not looked into."""
    if not folder.is_dir():
        raise AnalysisError(f"no such folder: {folder}")
    if (folder / "config.yaml").is_file():
        return [folder]
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in below for run in _find(path, depth - 1)] if depth else []


def _config(file: Path) -> dict[str, Any]:
    try:
        config = yaml.load(_text(file), Loader=SAFE_YAML)  # noqa: S506  # it is a safe loader
    except yaml.YAMLError as error:
        raise AnalysisError(f"{file}: {_one_line(error)}") from None
    lacking = [key for key in REQUIRED if key not in flatten(config if isinstance(config, dict) else {})]
    if lacking:
        raise AnalysisError(f"{file}: lacks {', '.join(lacking)}; is it a run's configuration?")
    config = with_later_keys(config)
    if changed := not_of_its_folder(file, config):
        raise AnalysisError(changed)
    return config


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnalysisError(f"{file}: {_one_line(error)}") from None


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AnalysisError(f"{name}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise AnalysisError(f"{name}: expected a JSON object, got {text.strip()[:40]}")
    return value


def _equal(value: Any, wanted: Any) -> bool:
    """Whether a setting is what the command line asks for: numbers as numbers, the rest as text."""
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        same = {"none": "null", "~": "null"}
        left, right = str(value).lower(), str(wanted).lower()
        return same.get(left, left) == same.get(right, right)


def _tell_missing(runs: list[Run], seeds: list[int]) -> None:
    """Name the rows of the figure or table to come, as far as several are there, that lack a seed."""
    told = [key for key in ("dataset.name", "model.blocks") if len({run.settings.get(key) for run in runs}) > 1]
    rows: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for run in runs:
        row = [f"{key} = {run.settings.get(key, '-')}" for key in told]
        rows[(policy_order(run.policy), *row, run.policy)].add(run.seed)
    for (_, *row), have in sorted(rows.items()):
        if lacking := sorted(set(seeds) - have):
            print(f"{_values(row)}: no finished run of seed {_values(lacking)}", file=sys.stderr)


def _names(runs: list[Run]) -> str:
    return first_of(str(run.path) for run in runs)


def _values(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
