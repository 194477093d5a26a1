"""Options without a YAML file, and those of plug-ins, where Hydra looks for them."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class NclabOptions(SearchPathPlugin):
    """Hydra calls this whenever it is initialised: by nclab-train, a sweep, a plan or `compose` in a notebook."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if "nclab.config.schema" not in sys.modules:  # another program of this environment that uses Hydra
            return
        from nclab.config.options import offer_options

        for folder in offer_options():
            search_path.append("nclab", f"file://{folder}")
