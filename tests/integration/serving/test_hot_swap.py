"""Twenty swaps under load lose nothing and mix nothing up; how fast is told by `python -m load_tests.hot_swap`."""

import json
import subprocess
import sys

import pytest

from tests.integration.serving.world import ROOT


@pytest.mark.long
def test_twenty_swaps_under_load_fail_no_request_and_every_score_is_its_versions() -> None:
    command = [sys.executable, "-m", "load_tests.hot_swap", "--seconds", "2"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["swaps"], told["failed"], told["wrong_scores"]) == (20, 0, 0)
    assert told["versions_that_answered"] == 21
