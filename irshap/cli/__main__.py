"""`python -m irshap.cli`."""

import sys

from irshap.cli import main

sys.exit(main())
