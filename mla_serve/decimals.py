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


def percent(share: float) -> str:
    """Write a share of one in per cent, as the page does. A share below 1 is never written as 100 %, nor one above 0 as 0 %."""
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"
