"""The rounding rule for channel counts."""

from keras_mobilenets.arguments import check_numbers


def make_divisible(value: float, divisor: int = 8, min_value: int | None = None, round_limit: float = 0.9) -> int:
    """Rounds a number of channels to a multiple of `divisor`, never down by more than 10 %.

    Args:
        value: number of channels, > 0; usually a width times alpha.
        divisor: the result is a multiple of it. Eight channels fill a vector register of most phones.
        min_value: smallest result; `divisor` by default.
        round_limit: the result is at least this share of `value`.

    Returns:
        The number of channels.

    Raises:
        ValueError: `value` or `divisor` is not positive.

    Reference:
        `_make_divisible` of TF-slim's MobileNetV2 (arXiv:1801.04381).

    Example:

    >>> make_divisible(32 * 0.35), make_divisible(24 * 0.75), make_divisible(3)
    (16, 24, 8)
    """
    check_numbers("(0, inf)", value=value, divisor=divisor)
    check_numbers("[0, inf)", optional=True, min_value=min_value)
    check_numbers("[0, 1]", round_limit=round_limit)
    rounded = max(min_value or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded
