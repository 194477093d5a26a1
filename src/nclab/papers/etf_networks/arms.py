"""Which runs of networks are one curve, and what it is called: a classifier, and the dimension of its input."""

from nclab.analysis.labels import dataset_label
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run, refuse_mixture

MODELS = frozenset({"cnn", "resnet", "vgg"})
NEEDED = Needs("convolutional networks that measure the suites collapse and margin", MODELS,
               suites=frozenset({"collapse", "margin"}))  # fmt: skip
# Okabe and Ito's colours; the dash says whether the last block has a channel a class.
COLOURS = {"learnt": "black", "fixed ETF": "#D55E00", "nearest ETF": "#0072B2"}
DASHES = {"d": "-", "K": (0, (3.2, 1.8))}
LOOKS = {
    f"{classifier}, {size}": {"color": colour, "ls": dash}
    for classifier, colour in COLOURS.items()
    for size, dash in DASHES.items()
}


def arm(run: Run) -> str:
    """'fixed ETF, K': the classifier, and d or K dimensions of its input. Raises AnalysisError for a classifier that is
    none of COLOURS."""
    etf = run.config["etf"]
    size = "K" if run.config["model"]["features"] == "classes" else "d"
    if etf["name"] == "none":
        return f"learnt, {size}"
    if etf["name"] == "nearest" and etf["gradient"]:
        return f"nearest ETF, {size}"
    if etf["name"] == "last_k" and etf["kind"] == "etf":
        return f"fixed ETF, {size}"
    raise AnalysisError(f"{run.path}: expected etf none, last_k or nearest with its gradient, got {run.policy}")


def arms(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs by arm, in the order of LOOKS. Raises AnalysisError where those of an arm differ in more than their
    seed, or arms in the length of the features."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(arm(run), []).append(run)
    for group in groups.values():
        refuse_mixture(group)
    lengths = {run.config["model"].get("tau") for run in runs}
    if len(lengths) > 1:
        raise AnalysisError(f"expected runs of one model.tau, got {', '.join(sorted(map(str, lengths)))}; --where")
    return {name: groups[name] for name in LOOKS if name in groups}


def about(run: Run) -> str:
    """'Fashion-MNIST, 2,000 train images, ResNet8 of width 16, features of length 5, 20 epochs'."""
    model, size = run.config["model"], run.config["dataset"].get("train_size")
    network = {
        "cnn": lambda: f"CNN of {len(model['channels'])} stages and {model['channels'][-1]} channels",
        "resnet": lambda: f"ResNet{model['depth']} of width {model['width']}",
        "vgg": lambda: f"VGG{model['depth']} of width {model['width']}",
    }[model["name"]]()
    parts = [
        dataset_label(run.config),
        f"{size:,} train images" if size else "",
        network,
        "" if model.get("tau") is None else f"features of length {model['tau']:g}",
        f"{run.config['epochs']} epochs",
    ]
    return ", ".join(filter(None, parts))
