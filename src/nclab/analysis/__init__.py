"""From run folders to tables and figures; needs pandas and matplotlib, never torch."""

from nclab.analysis.curves import brief, curves, switches
from nclab.analysis.figures import figure1, figure2, save_figure, style
from nclab.analysis.runs import AnalysisError, Run, choose, differences, load_runs, policy_label
from nclab.analysis.tables import readable, save_table, summary_table, text_table

__all__ = [
    "AnalysisError",
    "Run",
    "brief",
    "choose",
    "curves",
    "differences",
    "figure1",
    "figure2",
    "load_runs",
    "policy_label",
    "readable",
    "save_figure",
    "save_table",
    "style",
    "summary_table",
    "switches",
    "text_table",
]
