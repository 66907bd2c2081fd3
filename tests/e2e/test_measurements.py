"""The measurements that pages name, each with little to measure: it runs to its end and prints its figures as JSON."""

import json
import re
import subprocess
import sys
from typing import Final

import pytest

from tests.pages import CODES, ROOT

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(300)]

#: Options that make them short.
LITTLE: Final = {
    "load_tests.streams.joiner_bench": ("--requests", "200", "--drivers", "bare"),
    "load_tests.streams.features_bench": ("--requests", "200", "--drivers", "bare"),
    "load_tests.gateway": ("--seconds", "0.5", "--connections", "4", "--key"),
    "load_tests.replay": ("--rows", "2000", "--seconds", "0.5"),
    "load_tests.learning.deep_training": ("--rows", "1000", "--steps", "3", "--kinds", "linear"),
}


def test_every_measurement_that_a_page_names_is_run() -> None:
    named = {found for code in CODES for found in re.findall(r"python -m (load_tests[\w.]*)", code.text)}

    assert named == LITTLE.keys()


@pytest.mark.parametrize("module", LITTLE)
def test_measurement_tells_its_figures(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *LITTLE[module]], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3_000:]
    told = done.stdout[done.stdout.index("{") :]
    figures, _ = json.JSONDecoder().raw_decode(told)
    assert figures
