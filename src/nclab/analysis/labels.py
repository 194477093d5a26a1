"""What policies are called in figures and tables, how they are sorted, and which of their keys mean nothing."""

import re

BASELINE, NO_FFN = "baseline", "no FFN"
# A frozen control keeps a map as it stands: frames, rank and scales describe the ETF that it is not made.
OF_ETF_ALONE = re.compile(r"frame|rank|scale")
CONTROLS = {"frozen": "frozen", "frozen_scaled": "scaled", "orthogonal": "orthogonal"}  # etf.kind -> word
# Names as papers write them; others are shown as they are.
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
DATASETS |= {"mnist5k": "MNIST (5k)", "imdb": "IMDB"}
MODELS = {"mlp": "MLP", "vit": "ViT", "cnn": "CNN", "resnet": "ResNet", "vgg": "VGG"}
ORDER = [
    BASELINE,
    *("last ", "frozen last", "scaled last", "orthogonal last"),
    "nearest",
    *("Adaptive", "frozen at", "scaled at", "orthogonal at"),
    *("FFN-ETF", "frozen FFN", "scaled FFN", "orthogonal FFN", NO_FFN),
]


def policy_label(config: dict) -> str:
    """'baseline', 'last 2 ETF', 'Adaptive-ETF', 'FFN-ETF last 1 + head', 'frozen at switch', 'scaled last 2', ...

    An ETF whose frames are all canonical, as in the author's code, says so: 'last 2 ETF canonical'; one whose hidden
    layers alone have them too: 'last 3 ETF canonical hidden'.
    """
    etf = config["etf"]
    control = CONTROLS.get(etf.get("kind"))
    return _policy(config, etf, control) + _canonical(etf)


def _policy(config: dict, etf: dict, control: str | None) -> str:
    if etf["name"] == "none":
        return NO_FFN if _without_ffn(config) else BASELINE
    if etf["name"] == "last_k":
        return f"{control} last {etf.get('k')}" if control else f"last {etf.get('k')} ETF"
    if etf["name"] == "adaptive":
        return f"{control} at switch" if control else "Adaptive-ETF"
    if etf["name"] == "clock":
        return f"{control} last {etf.get('k')} by the clock" if control else f"last {etf.get('k')} ETF by the clock"
    if etf["name"] == "transformer_ffn":
        head = " + head" if etf.get("classifier") else ""
        return f"{f'{control} FFN' if control else 'FFN-ETF'}{_blocks(etf.get('blocks', 'all'))}{head}"
    if etf["name"] == "nearest":
        constant, no_bias = not etf.get("gradient", True), not etf.get("bias", True)
        return "nearest ETF" + ", constant" * constant + ", no bias" * no_bias
    return etf["name"]


def _canonical(etf: dict) -> str:
    if etf.get("frame") != "canonical":
        return ""
    if etf.get("classifier_frame") == "canonical":
        return " canonical"
    return " canonical hidden" if etf["name"] == "last_k" and etf.get("k", 0) > 1 else ""


def policy_order(label: str) -> tuple[int, str, int]:
    """Sort key of the labels, in the order of ORDER, numbers as numbers; others come last."""
    rank = next((i for i, head in enumerate(ORDER) if label.startswith(head)), len(ORDER))
    number = re.search(r"\d+", label)
    return rank, re.sub(r"\d+", "", label), int(number[0]) if number else 0


def meaningless(config: dict) -> set[str]:
    """Dotted keys of the configuration that change nothing in its run."""
    etf = config["etf"]
    of_ffn = {"model.ffn_norm"} if _without_ffn(config) else set()
    return of_ffn | {f"etf.{key}" for key in etf if etf.get("kind") == "frozen" and OF_ETF_ALONE.search(key)}


def said_by_label(label: str) -> set[str]:
    """Dotted keys outside `etf` that the label stands for: runs may differ in them as they differ in policy."""
    return {"model.ratio", "model.ffn_norm"} if label == NO_FFN else set()


def statistic_label(name: str) -> str:
    """'test accuracy', 'nc1_trace_ratio last': words, but a column by its name: there are two NC1 and five NC2."""
    column = re.fullmatch(r"(nc\d\w*?)_(last|minus_\w+)", name)
    return " ".join([column[1], column[2].replace("_", " ")]) if column else name.replace("_", " ")


def count_of_blocks(blocks: int) -> str:
    """'1 block', '2 blocks'."""
    return "1 block" if blocks == 1 else f"{blocks} blocks"


def dataset_label(config: dict) -> str:
    """'Fashion-MNIST', 'Fashion-MNIST-LT 100:1': the dataset as papers write it, a long tail with its imbalance."""
    dataset = config["dataset"]
    name = DATASETS.get(dataset["name"], dataset["name"])
    imbalance = dataset.get("imbalance") or 1
    if imbalance == 1:
        return name
    step = " (step)" if dataset.get("imbalance_profile") == "step" else ""
    return f"{name}-LT {imbalance:g}:1{step}"


def model_label(config: dict, without: tuple[str, ...] = ()) -> str:
    """'MLP of 5 layers, width 400'; `without` as in `setting_label`."""
    model = config["model"]
    name = MODELS.get(model["name"], model["name"])
    if "model.depth" not in without and "depth" in model:
        name += f" of {model['depth']} layers"
    if "model.blocks" not in without and "blocks" in model:
        name += f" of {count_of_blocks(model['blocks'])}"
    return f"{name}, width {model['width']}" if "width" in model else name


def setting_label(config: dict, without: tuple[str, ...] = ()) -> str:
    """'Fashion-MNIST, MLP of 5 layers, width 400, cosine rate': what runs of one picture share, for its title.

    without: Dotted keys that the panels of the picture tell apart, such as model.blocks.
    """
    schedule = config.get("schedule") or {}
    parts = [dataset_label(config), model_label(config, without)]
    parts += [f"{schedule['name']} rate"] if "name" in schedule else []
    return ", ".join(parts)


def _without_ffn(config: dict) -> bool:
    return config["model"]["name"] == "vit" and config["model"].get("ratio") == 0


def _blocks(blocks: str | list[int]) -> str:
    """'all' -> '', 'last1' -> ' last 1', [1, 3] -> ' 1,3'."""
    if blocks == "all":
        return ""
    if isinstance(blocks, list):
        return f" {','.join(map(str, blocks))}"
    return " " + re.sub(r"(?<=[a-z])(?=\d)", " ", str(blocks))
