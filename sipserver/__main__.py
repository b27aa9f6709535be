"""``python -m sipserver``: the same as the ``sipserver`` command."""

from __future__ import annotations

from sipserver.cli.main import main

if __name__ == "__main__":
    main()
