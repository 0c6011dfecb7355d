"""`python -m irshap`: the command line."""

import sys

from irshap.cli import main

sys.exit(main())
