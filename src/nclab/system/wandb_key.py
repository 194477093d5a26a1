"""Whether Weights & Biases can log in by itself here, found out without network: for trackers and `nclab-runs`."""

import netrc
import os
import warnings
from urllib.parse import urlsplit

PUBLIC = "api.wandb.ai"


def has_key() -> bool:
    """Whether there is a key or token in the environment, in wandb's settings file, or in the netrc file for the server
    that both name. Raises ImportError without wandb."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        import wandb  # here, not above: it takes a second

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    # Disabled: else it starts a process of its own and names it in the environment, which a job on another node
    # inherits. A run says its own mode.
    settings = wandb.setup(wandb.Settings(mode="disabled")).settings
    if settings.api_key or settings.identity_token_file:
        return True
    server = urlsplit(settings.base_url)
    names = [server.netloc, server.hostname]
    if settings.base_url == wandb.Settings().base_url:  # the public server, which newer versions call by another name
        names.append(PUBLIC)
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
        return any(name and known.authenticators(name) for name in names)
    except (OSError, netrc.NetrcParseError):
        return False
