"""Figure 12: the semantic scale v (Eq. 15).

    python scripts/reproduce/fig12.py                       on the toy: four targets, three scenes

fig12-grid has a row for each target; fig12 has the measures of all pictures, with the standard error over targets.
"""

from collections.abc import Sequence

from study import options
from sweeps import Sweep, run_sweeps

SWEEPS = [Sweep("semantic_scale", "semantic scale v", ["0", "0.2", "0.4", "0.6", "0.8", "1", "1.2"], ["0", "0.8"])]


def main(argv: Sequence[str] | None = None) -> None:
    run_sweeps(options(__doc__, limit=4).parse_args(argv), SWEEPS, "fig12")


if __name__ == "__main__":
    main()
