"""Each example runs as a user runs it, and shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_quickstart_shows_the_gain(tmp_path):
    picture = tmp_path / "picture.png"
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py"), str(picture)],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = {
        line[:24].strip(): [float(x) for x in re.findall(r"([01]\.\d{3}) \+-", line)]
        for line in result.stdout.splitlines()
        if "+-" in line and re.search(r"\d", line)
    }
    aligned, conflicting, no_square = zip(
        *(rows[name] for name in ("ERM", "ERM, continued", "MaskTune")), strict=True
    )
    assert conflicting[2] >= conflicting[0] + 0.35
    assert conflicting[2] >= conflicting[1] + 0.35
    assert aligned[2] >= 0.85
    assert no_square[2] > no_square[0]
    square, image = re.search(r"hide (\d+)% .* ([\d.]+)%", result.stdout).groups()
    assert int(square) >= 60
    assert 1 < float(image) < 6
    assert picture.stat().st_size > 20_000
