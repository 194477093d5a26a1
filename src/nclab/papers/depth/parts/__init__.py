"""Models that only this paper needs; the registries import every module here."""
