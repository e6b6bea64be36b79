"""Which cases of a parametrized test the README's command runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def rest_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Cases of one property that cost much each: the named ones are always run, `.ci/run all` runs every one."""
    cases = [pytest.param(*one) if isinstance(one, tuple) else pytest.param(one) for one in values]
    chosen = [case if case.values[0] in quick else pytest.param(*case.values, marks=pytest.mark.slow) for case in cases]
    assert sum(not case.marks for case in chosen) >= len(quick) > 0
    return chosen
