"""Makes all figures and tables, one after the other, in one work folder.

    python scripts/reproduce/all.py                         on the toy
    python scripts/reproduce/all.py --quick                 a look at every part, in a minute

Takes the options that all scripts share, not those of a single script.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import fig8
import fig9
import fig10
import fig11
import fig12
import fig13
import tables


def main(argv: Sequence[str] | None = None) -> None:
    for script in (fig8, tables, fig9, fig10, fig11, fig12, fig13):
        print(f"== {script.__name__}", file=sys.stderr)
        script.main(argv)


if __name__ == "__main__":
    main()
