"""Lower precision on the device: what TF32, bf16 and images laid out channels last gain."""

from dataclasses import dataclass

from nclab.bench.by_hand import feed, learner
from nclab.bench.gpu.row import Aim, Line, Row, at_once
from nclab.bench.harness import Call, images, interleaved
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.models import Classifier
from nclab.models.mlp import MLP
from nclab.models.resnet import ResNetSettings, build_resnet
from nclab.training.optim import SGDSettings, sgd
from nclab.training.step import set_products, train_epoch, training_run

TF32 = Aim("tf32=true: an epoch of MLP-5x2048, batch 512", "times as fast", least=1.5)
BF16 = Aim("precision=bf16: an epoch of ResNet18 on 32 x 32 pixels", "times as fast", least=1.5)
LAYOUT = Aim("channels last: the same in bf16, against the plain layout", "times as fast", least=1)
CLASSES, REPEATS = 10, 3


def noise(n: int, shape: tuple[int, int, int], device: str) -> Dataset:
    return Dataset({"train": Split(*images(n, CLASSES, shape, seed=0))}, Classes(CLASSES), shape).to(device)


def epoch(model: Classifier, dataset: Dataset, batch: int, tf32: bool = False, precision: str = "float32") -> Call:
    """A call that trains an epoch."""
    optimizer = sgd(SGDSettings(), model.parameters())
    of_model, batches = learner(model, optimizer, run=training_run(model, precision)), feed(dataset, batch)

    def one() -> None:
        set_products(tf32)
        train_epoch(of_model, batches)

    return one


def in_plain_layout(model: Classifier) -> Classifier:
    """The same network, whose images lie as they came."""
    prepared = model.prepared
    model.prepared = lambda x: prepared(x).contiguous()
    return model


@dataclass(frozen=True)
class Sizes:
    """Of the MLP: its width and batch. Of the ResNet: the side of its images, its depth, width and batch. Steps of an
    epoch."""

    mlp: tuple[int, int] = (2048, 512)
    side: int = 32
    resnet: tuple[int, int] = (18, 64)
    batch: int = 128
    steps: int = 20


def measure(device: str, sizes: Sizes = Sizes()) -> list[Row]:
    width, batch = sizes.mlp
    flat = noise(sizes.steps * batch, (1, 28, 28), device)
    mlps = [MLP(784, CLASSES, 5, width).to(device) for _ in range(2)]
    ways = zip(mlps, (False, True), strict=True)
    ieee, tf32 = interleaved(REPEATS, *(epoch(model, flat, batch, how) for model, how in ways), device=device)
    square = noise(sizes.steps * sizes.batch, (3, sizes.side, sizes.side), device)
    settings = ResNetSettings(depth=sizes.resnet[0], width=sizes.resnet[1], stem="cifar")
    nets = [build_resnet(settings, square.shape, CLASSES).to(device) for _ in range(3)]
    pairs = [(nets[0], "float32"), (nets[1], "bf16"), (in_plain_layout(nets[2]), "bf16")]
    full, low, plain = interleaved(
        REPEATS, *(epoch(net, square, sizes.batch, precision=precision) for net, precision in pairs), device=device
    )
    step = f"a step takes {1e3 * low / sizes.steps:.2f} ms"
    return [
        TF32.row(ieee / tf32, f"a step takes {1e3 * tf32 / sizes.steps:.2f} ms"),
        BF16.row(full / low, step),
        LAYOUT.row(plain / low, step),
    ]


LINE = Line("precision", 40, (TF32, BF16, LAYOUT), at_once(measure))
