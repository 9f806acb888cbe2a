"""`python -m unblur` is the command `unblur`."""

import sys

from unblur.cli import main

sys.exit(main())
