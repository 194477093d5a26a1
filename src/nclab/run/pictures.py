"""The pictures of a run that a tracker shows at its end."""

from pathlib import Path


def pictures_of(folder: Path) -> dict[str, bytes]:
    """Name -> PNG: the curves of every split, of those of SHOWN that the run has, as `nclab-draw curves` draws them."""
    # Here, not above: pandas and matplotlib take a second, which runs without such a tracker need not wait for.
    from nclab.analysis.drawing import as_png
    from nclab.analysis.metric_curves import SHOWN, drawable, metric_curves
    from nclab.analysis.runs import load_runs

    (run,) = load_runs([folder], finished_only=False, trials=True)
    numbers = run.metrics[run.metrics["value"].notna()]
    found = {}
    for split in dict.fromkeys(numbers["split"]):
        figure, _ = metric_curves([run], metric=drawable(run, SHOWN, split), split=split)
        found[f"curves_{split}"] = as_png(figure)
    return found
