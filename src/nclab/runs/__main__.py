"""`python -m nclab.runs`."""

import sys

from nclab.runs import main

sys.exit(main())
