"""Which long-tailed runs are one method, and what it is called."""

from nclab.analysis.labels import dataset_label
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run, refuse_mixture

NEEDED = Needs(
    "classifiers that measure the suites collapse and long_tail", suites=frozenset({"collapse", "long_tail"})
)
CE, CAL, AL = "cross-entropy", "CAL", "AL"
LOSSES = {"cross_entropy": CE, "logit_adjusted": "logit adjustment", "dot_regression": "fixed ETF, dot regression"}
CENTRES = {  # allocation, weights, scale -> name
    ("equal", "sum", "own"): AL,
    ("class_aware", "sum", "own"): CAL,
    ("equal", "equal", "class_aware"): "AL at CAL's scale",
    ("equal", "class_aware", "own"): "AL, CAL's class weights",
    ("class_aware", "equal", "class_aware"): "CAL, equal class weights",
    ("class_aware", "mean", "class_aware"): "CAL, mean over centres",
    ("reversed", "sum", "class_aware"): "CAL, reversed",
}
STRATEGIES = {"reg": "reg", "slerp": "slerp", "proj": "proj"}
CONTROL = "equal norms alone"
ORDER = [
    CE,
    "class-balanced sampling",
    *list(LOSSES.values())[1:],
    *CENTRES.values(),
    *(name + end for name in STRATEGIES.values() for end in ("", ", equal norms")),
    CONTROL,
]


def method(run: Run) -> str:
    """'cross-entropy', 'CAL, mean over centres', 'slerp, equal norms': what is trained in the place of plain
    cross-entropy. Raises AnalysisError for what is none of ORDER."""
    s = run.settings
    found = []
    if s["etf.name"] == "align":
        turns = STRATEGIES[s["etf.strategy"]] + (", equal norms" if s["etf.equal_norms"] else "")
        found.append(CONTROL if s["etf.strategy"] == "slerp" and not s["etf.amount"] else turns)
    if s["loss.name"] == "multi_center":
        found.append(CENTRES.get((s["loss.allocation"], s["loss.weights"], s["loss.scale"]), "multi_center"))
    elif s["loss.name"] != "cross_entropy":
        found.append(LOSSES.get(s["loss.name"], s["loss.name"]))
    if s["sampler.name"] == "class_balanced":
        found.append("class-balanced sampling")
    name = " and ".join(found) or CE
    if name not in ORDER:
        raise AnalysisError(f"{run.path}: expected one of the methods {'; '.join(ORDER)}; got {name}")
    return name


def methods(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs by method, in ORDER. Raises AnalysisError where those of a method differ in more than their seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(method(run), []).append(run)
    for group in groups.values():
        refuse_mixture(group)
    return {name: groups[name] for name in ORDER if name in groups}


def about(run: Run, imbalance: bool = True) -> str:
    """'Fashion-MNIST-LT 100:1, 3,000 train images, MLP of depth 4 and width 256, 40 epochs'; without the imbalance
    where runs differ in it."""
    model, size = run.config["model"], run.config["dataset"].get("train_size")
    network = f"{model['name'].upper()} of depth {model['depth']} and width {model['width']}" if "depth" in model else (
        f"CNN of {model['channels'][-1]} channels" if "channels" in model else model["name"]
    )  # fmt: skip
    name = dataset_label(run.config)
    parts = [
        name if imbalance else name.partition("-LT ")[0],
        f"{size:,} train images" if size else "",
        network,
        f"{run.config['epochs']} epochs",
    ]
    return ", ".join(filter(None, parts))
