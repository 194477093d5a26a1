"""Several seeds as one batched model against one after another."""

from functools import partial

from nclab.bench.gpu.row import Aim, Line, Row, at_once
from nclab.bench.harness import interleaved
from nclab.bench.seeds_timed import as_one, fits, in_turns

NAMES = ("MLP-5x400, 28 x 28 pixels", "ViT-2x64, 28 x 28 pixels")
SEEDS = (1, 2, 4, 8, 16)
LEAST = {8: 5.0}  # seeds -> times as fast
AIMS = {
    (name, seeds): Aim(f"{seeds} stacked seed{'s'[: seeds > 1]} of {name}", "times as fast", least=LEAST.get(seeds))
    for name in NAMES
    for seeds in SEEDS
}
REPEATS = 2


def measure(device: str, most: int | None = None) -> list[Row]:
    """most: images of an epoch; None: all of the setting."""
    rows = []
    for (name, seeds), aim in AIMS.items():
        of_seeds = fits(name, seeds, device, most)
        turns, one = interleaved(REPEATS, partial(in_turns, of_seeds), partial(as_one, of_seeds), device=device)
        rows.append(aim.row(turns / one, f"{1e3 * one:.0f} ms, in turns {1e3 * turns:.0f}"))
    return rows


LINE = Line("stacked seeds", 50, tuple(AIMS.values()), at_once(measure))
