"""Figure 13: the strength and steps of guidance by the actor (Eq. 19): eta_1, eta_2, and the guided steps.

    python scripts/reproduce/fig13.py                       on the toy: four targets, three scenes

If eta_2 varies, eta_1 is the guidance scale + eta_2, as in the paper. fig13-grid-KEY has a row for each target; fig13
has the measures of all pictures, with the standard error over targets.
"""

from collections.abc import Sequence

from study import options
from sweeps import Sweep, run_sweeps

SWEEPS = [
    Sweep("eta_1", "target attraction η1, with η2 = 1", ["2", "3.5", "5", "8.5", "12"], ["2", "5"]),
    Sweep("eta_2", "auxiliary exclusion η2", ["0", "0.5", "1", "2", "4"], ["0", "1"]),
    Sweep("guided_steps", "guided steps", ["1-5", "1-10", "1-15", "1-20", "1-25", "1-30"], ["1-1", "1-4"]),
]


def main(argv: Sequence[str] | None = None) -> None:
    run_sweeps(options(__doc__, limit=4).parse_args(argv), SWEEPS, "fig13")


if __name__ == "__main__":
    main()
