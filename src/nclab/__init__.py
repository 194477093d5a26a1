"""nclab: neural collapse with simplex ETFs, from one command to a paper's figures."""

__version__ = "0.1.0"
