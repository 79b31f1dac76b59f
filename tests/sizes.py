"""Cases of which `make test` runs some and `make test-all` all."""

import pytest


def mostly_slow(cases, *quick):
    """The cases of a parametrised test, all slow but the quick ones."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
