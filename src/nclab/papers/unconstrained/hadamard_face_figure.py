"""On and beside a spurious face s_i = 0: gradient descent, and the flow beyond every time that a float holds."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.unconstrained.hadamard_figure import NEEDS
from nclab.papers.unconstrained.hadamard_runs import Group, face, flow_beside, groups, numbers, singular, times
from nclab.theory.hadamard import etf_cosine, flow, lyapunov

LONGEST = 1e4  # log(1 + t) up to which the flow is drawn
AT = np.geomspace(1.0, LONGEST, 60)
PANELS = {
    "share": "s beside the face over\nmean of the others",
    "etf_cosine": "cosine to the simplex ETF\n(etf_cosine)",
    "lyapunov": "Lyapunov function:\n1 − (K−1) V",
}
LOOKS = ({"color": "#0072B2", "ls": "-", "marker": "o"}, {"color": "#D55E00", "ls": (0, (5, 1.2)), "marker": "s"})


@DRAWINGS.figure(
    "hadamard_face",
    of="model=hadamard on a face and beside it: gradient descent and the flow in closed form",
    caption="Starts with some singular values at 0 (on the face) or near it (beside). Lines: the flow in closed form, "
    "as far as log(1 + t) = 10,000. Points: gradient descent on the matrices. On the face the share on the left is 0 "
    "throughout, and the logits never collapse. Beside it the cosine to the ETF first falls, while the Lyapunov "
    "function V rises all the time, and collapse comes after times that no gradient descent runs.",
    needs=NEEDS,
)
def hadamard_face(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Of the first seed: one panel each for the share of the face's singular values, cosine and Lyapunov function; the
    table has start, kind (flow or descent), log_time, share, etf_cosine, lyapunov."""
    shown = [group for group in groups(runs) if group.face]
    if {group.classes for group in shown} != {shown[0].classes if shown else 0} or len(shown) > len(LOOKS):
        raise AnalysisError(
            f"hadamard_face draws runs of one number of classes with model.face above 0, at most {len(LOOKS)} starts; "
            f"got {', '.join(f'K = {g.classes}, model.beside={g.beside:g}' for g in shown) or 'none'}"
        )
    table = pd.concat([_path(group) for group in shown], ignore_index=True)
    with style():
        return _draw(table, shown), table


def _path(group: Group) -> pd.DataFrame:
    run = group.runs[0]
    found = numbers(run)
    descent = _columns(singular(found).to_numpy(), face(run))
    descent |= {"etf_cosine": found.etf_cosine.to_numpy(), "lyapunov": found.lyapunov.to_numpy()}
    exact = flow(flow_beside(run, found)[0], AT)
    line = _columns(exact, face(run)) | {
        "etf_cosine": [etf_cosine(s) for s in exact],
        "lyapunov": [lyapunov(s) for s in exact],
    }
    return pd.concat(
        [
            pd.DataFrame({"start": group.beside, "kind": "flow", "log_time": AT} | line),
            pd.DataFrame(
                {"start": group.beside, "kind": "descent", "log_time": np.log1p(times(run, found.index))} | descent
            ),
        ]
    )


def _columns(s: np.ndarray, own: list[int]) -> dict[str, np.ndarray]:
    others = np.delete(s, [0, *own], axis=1).mean(1)
    return {"share": s[:, own].mean(1) / others}


def _draw(table: pd.DataFrame, shown: list[Group]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    classes = shown[0].classes
    for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for group, look in zip(shown, LOOKS, strict=False):
            if metric == "share" and not group.beside:
                continue  # 0 throughout, on a logarithmic axis nowhere
            own = table[(table.start == group.beside) & (table.log_time >= AT[0])]
            own = own.assign(value=1 - (classes - 1) * own.lyapunov if metric == "lyapunov" else own[metric])
            line, points = own[own.kind == "flow"], own[own.kind == "descent"].iloc[::8]
            axes.plot(line.log_time, line.value, color=look["color"], ls=look["ls"], lw=THICK)
            axes.plot(points.log_time, points.value, color=look["color"], ls="", marker=look["marker"], ms=3)
        axes.set_title(title, fontsize=7.5)
        axes.set_xscale("log")
        axes.set_xlim(AT[0], AT[-1])
        axes.set_xlabel("log(1 + t), natural logarithm")
        if metric == "etf_cosine":
            axes.set_ylim(top=1)
        else:
            axes.set_yscale("log")
    seed, count = shown[0].runs[0].seed, shown[0].face
    caption(figure, f"K = {classes}, {count} of the singular values on or beside a face; points: gradient descent; "
            f"lines: the flow in closed form; seed {seed}")  # fmt: skip
    labels = [f"start at s = {g.beside:g}: {'beside the face' if g.beside else 'on the face'}" for g in shown]
    legend(figure, [key(label, ms=3, **look) for label, look in zip(labels, LOOKS, strict=False)])
    return figure
