"""Which runs are one setting of a sweep, and what it is called: one knob is turned, all others are at their base."""

from collections import Counter
from typing import Any

from nclab.analysis.labels import dataset_label
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run, differences, refuse_twins

NEEDED = Needs(
    "networks on source classes that measure the suites collapse, complexity and few_shot",
    suites=frozenset({"collapse", "complexity", "few_shot"}),
)
SPLIT = "dataset.class_split"
KNOBS = {  # key -> what a figure calls it
    "loss.l2": "L2 λ",
    "optimizer.lr": "learning rate",
    "batch_size": "batch size",
    "loss.complexity": "GC penalty",
}
BASE = "base"
COLOURS = {
    BASE: "black",
    "loss.l2": "#0072B2",
    "optimizer.lr": "#D55E00",
    "batch_size": "#009E73",
    "loss.complexity": "#CC79A7",
}
MARKERS = {BASE: "*", "loss.l2": "o", "optimizer.lr": "s", "batch_size": "^", "loss.complexity": "D"}
Setting = tuple[str, Any]  # the knob that is turned (BASE: none), and its value


def settings_of(runs: list[Run]) -> dict[Setting, list[Run]]:
    """The runs by setting, the base first, then knob by knob in the order of their values.

    The base has of every knob the value that most settings have. Runs that turn one knob alone do not tell which is the
    base: all are settings of that knob.

    Raises AnalysisError for runs that differ in anything but one knob, the class split and the seed.
    """
    if other := {key: values for key, values in differences(runs).items() if key not in (*KNOBS, SPLIT)}:
        key, values = next(iter(other.items()))
        raise AnalysisError(
            f"expected runs that differ in {', '.join(KNOBS)}, {SPLIT} and seed alone; they differ in {key} = "
            f"{', '.join(map(str, values))}"
        )
    points = {tuple(run.settings[key] for key in KNOBS) for run in runs}
    turned = [key for i, key in enumerate(KNOBS) if len({point[i] for point in points}) > 1]
    base = [Counter(point[i] for point in points).most_common(1)[0][0] for i in range(len(KNOBS))]
    found: dict[Setting, list[Run]] = {}
    for run in runs:
        away = [key for key, usual in zip(KNOBS, base, strict=True) if run.settings[key] != usual]
        away = turned if len(turned) == 1 else away
        if len(away) > 1:
            raise AnalysisError(f"{run.path}: expected one of {', '.join(KNOBS)} off its base, got {', '.join(away)}")
        found.setdefault((away[0], run.settings[away[0]]) if away else (BASE, None), []).append(run)
    order = {name: i for i, name in enumerate((BASE, *KNOBS))}
    found = {at: found[at] for at in sorted(found, key=lambda at: (order[at[0]], at[1] or 0))}
    for group in found.values():
        for split in {run.settings.get(SPLIT) for run in group}:
            refuse_twins([run for run in group if run.settings.get(SPLIT) == split])
    return found


def of_knob(settings: dict[Setting, list[Run]], knob: str) -> dict[Setting, list[Run]]:
    """The settings of one sweep, the base among them, in the order of the knob's values."""
    own = {at: runs for at, runs in settings.items() if at[0] in (BASE, knob)}
    return {at: own[at] for at in sorted(own, key=lambda at: own[at][0].settings[knob])}


def name_of(setting: Setting) -> str:
    """'learning rate 0.2'."""
    knob, value = setting
    return BASE if knob == BASE else f"{KNOBS[knob]} {value:g}"


def splits_of(runs: list[Run]) -> list[Any]:
    """The class splits, sorted."""
    return sorted({run.settings.get(SPLIT) for run in runs}, key=str)


def about(run: Run) -> str:
    """'Fashion-MNIST, 2,000 train images of 6 classes, MLP of 4 layers, width 128'."""
    model, dataset = run.config["model"], run.config["dataset"]
    size = f"{dataset['train_size']:,} train images of " if dataset.get("train_size") else ""
    classes = dataset.get("source_classes") or len(dataset.get("source_list") or ())
    network = {
        "mlp": lambda: f"MLP of {model['depth']} layers, width {model['width']}",
        "cnn": lambda: f"CNN of {len(model['channels'])} stages and {model['channels'][-1]} channels",
    }.get(model["name"], lambda: model["name"])()
    return f"{dataset_label(run.config)}, {size}{classes} classes, {network}"


def counted(groups: dict[Setting, list[Run]]) -> str:
    """'3 class splits of 3 seeds'."""
    runs = [run for group in groups.values() for run in group]
    splits, seeds = len(splits_of(runs)), len({run.seed for run in runs})
    return f"{splits} class split{'s' * (splits > 1)} of {seeds} seed{'s' * (seeds > 1)}"
