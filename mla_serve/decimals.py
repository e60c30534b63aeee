"""Write numbers for people. Standard library only, because the client draws answers, too."""

from __future__ import annotations

import math

VERY_LONG = 15  # digits
DECIMALS_AT_ONCE = 6  # more are written with an exponent, if the number is below .0001
MOST_WRITTEN = 12


def with_decimals(value: float, decimals: int) -> str:
    """Write a number with so many decimals; with an exponent where that would be very long or nearly all zeros.

    So 3.14159 with 2 is "3.14", and 3.14159e-9 with 11 is "3.14e-09".
    """
    leading = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    if leading >= VERY_LONG or (leading < -DECIMALS_AT_ONCE + 2 and decimals > DECIMALS_AT_ONCE):
        return f"{value:.{min(max(decimals + leading, 0), 3)}e}"
    return f"{value:,.{min(decimals, MOST_WRITTEN)}f}"
