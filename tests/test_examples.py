"""Each example runs as a user runs it, and shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name, picture):
    """Run an example; return what it prints."""
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), str(picture)],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


@pytest.mark.slow
def test_quickstart_shows_the_gain(tmp_path):
    picture = tmp_path / "picture.png"
    shown = run_example("quickstart.py", picture)
    rows = {
        line[:24].strip(): [float(x) for x in re.findall(r"([01]\.\d{3}) \+-", line)]
        for line in shown.splitlines()
        if "+-" in line and re.search(r"\d", line)
    }
    aligned, conflicting, no_square = zip(
        *(rows[name] for name in ("ERM", "ERM, continued", "MaskTune")), strict=True
    )
    assert conflicting[2] >= conflicting[0] + 0.35
    assert conflicting[2] >= conflicting[1] + 0.35
    assert aligned[2] >= 0.85
    assert no_square[2] > no_square[0]
    square, image = re.search(r"hide (\d+)% .* ([\d.]+)%", shown).groups()
    assert int(square) >= 60
    assert 1 < float(image) < 6
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_selective_prediction_shows_whom_abstaining_serves(tmp_path):
    picture = tmp_path / "picture.png"
    shown = run_example("selective_prediction.py", picture)
    coverages, worst = [], []
    for part in shown.split("risk at most 10%\n")[1:]:
        coverage, bound = re.search(
            r"all samples +270 +\S+ +(\S+) .*<= +(\S+)\n", part
        ).groups()
        assert float(bound) <= 0.1
        coverages.append(float(coverage))
        rows = re.findall(
            r"^(?:aligned|conflicting): .*? +(\S+) +(\S+) +(\S+)$", part, re.M
        )
        assert len(rows) == 4
        worst.append(min([float(x) for x in row] for row in rows))
    # For the same risk ERM accepts less, and little of its worst group: even there it
    # is wrong more often than not.
    assert coverages[1] >= coverages[0] + 0.15
    accuracy, accepted, accuracy_of_these = worst[0]
    assert max(accuracy, accepted, accuracy_of_these) < 0.5
    assert worst[1][0] >= accuracy + 0.3
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_unlearn_artifact_shows_the_gain(tmp_path):
    picture = tmp_path / "picture.png"
    shown = run_example("unlearn_artifact.py", picture)
    rows = {
        line[:16].strip(): [float(x) for x in re.findall(r"([01]\.\d{3}) \+-", line)]
        for line in shown.splitlines()
        if re.search(r"\d \+- \d", line)
    }
    clean, attacked = zip(
        *(rows[name] for name in ("ERM", "ERM, continued", "RR-ClArC")), strict=True
    )
    assert attacked[2] >= max(attacked[:2]) + 0.15
    assert clean[2] >= clean[0]
    before, after = re.search(r": (\S+) before, (\S+) after", shown).groups()
    assert float(after) < float(before) / 10
    assert picture.stat().st_size > 20_000
