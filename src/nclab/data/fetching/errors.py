"""What can go wrong on the way; each message is one line for the user."""


class FetchError(Exception):
    """A source that did not give the files."""


class NetworkError(FetchError):
    """An address that did not answer, or stopped answering."""
