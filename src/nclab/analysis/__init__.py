"""From run folders to tables and figures; needs pandas and matplotlib, never torch.

The figures and tables of a paper are in its wing, `nclab.papers.<wing>`, and are found through `DRAWINGS`.
"""

from nclab.analysis.curves import brief, curves, fixed_since, switches
from nclab.analysis.drawing import save_figure, style
from nclab.analysis.drawings import DRAWINGS, Drawing
from nclab.analysis.labels import policy_label
from nclab.analysis.runs import AnalysisError, Run, choose, differences, load_runs
from nclab.analysis.tables import readable, save_table, summary_table, text_table

__all__ = [
    "DRAWINGS",
    "AnalysisError",
    "Drawing",
    "Run",
    "brief",
    "choose",
    "curves",
    "differences",
    "fixed_since",
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
