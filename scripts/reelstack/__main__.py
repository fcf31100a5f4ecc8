"""`python -m reelstack`."""

from reelstack.cli import main

raise SystemExit(main())
