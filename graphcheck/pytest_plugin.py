"""The pytest plugin: a fixture that keeps the report of a comparison that fails.

pytest loads it wherever graphcheck is installed, so that nothing heavy is imported before the fixture is called.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from graphcheck.verdict import Comparison

_OPTION = "--graphcheck-reports"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option for the folder of reports."""
    parser.getgroup("graphcheck").addoption(
        _OPTION, metavar="DIR", help="where the reports of failed comparisons go (default: the tmp_path of each test)"
    )


@pytest.fixture
def graphcheck_equivalent(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[..., Comparison]:
    """``graphcheck.assert_equivalent``, which writes an HTML report where it fails: the failure and the JUnit XML name it."""
    folder = request.config.getoption(_OPTION) or request.getfixturevalue("tmp_path")
    name, count = re.sub(r"[^\w.-]+", "-", request.node.nodeid)[-120:].strip("-"), itertools.count(1)

    def equivalent(a: Any, b: Any, **options: Any) -> Comparison:
        __tracebackhide__ = True
        from graphcheck.api import assert_equivalent

        report = Path(folder, f"graphcheck-{name}-{next(count)}.html")
        try:
            return assert_equivalent(a, b, **{"report": report} | options)
        except AssertionError:
            record_property("graphcheck_report", str(options.get("report", report)))
            raise

    return equivalent
