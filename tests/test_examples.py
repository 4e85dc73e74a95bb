"""Each example runs as a user runs it, and shows what it says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from masktune_sk import exceptions
from masktune_sk.saliency import METHODS

EXAMPLES = Path(__file__).parent.parent / "examples"
N_PICTURES = 10  # the last two are for many processes, and draw nothing


def run_example(name, picture):
    """Run an example, which must not warn; return what it prints."""
    result = subprocess.run(
        [
            sys.executable,
            str(EXAMPLES / name),
            str(picture),
        ],
        # One thread: two that wait for each other crawl beside any other process.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    # Of our own warnings; those of other packages depend on their versions.
    assert not re.search("|".join(exceptions.__all__), result.stderr), result.stderr
    assert picture.stat().st_size > 20_000
    return result.stdout


def read_rows(shown):
    """Return the means in each line of a table of "mean +- std"."""
    rows = {}
    for line in shown.splitlines():
        cells = re.findall(r"([01]\.\d{3}) \+- \d", line)
        if cells:
            name = re.split(r"  +|(?<=\S) (?=[01]\.\d{3} \+-)", line.strip())[0]
            rows[name] = [float(cell) for cell in cells]
    return rows


def test_examples_are_numbered_without_a_gap():
    files = sorted(EXAMPLES.glob("*.py"))
    assert [int(file.name[:2]) for file in files] == list(range(1, len(files) + 1))


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda f: f.stem)
def test_an_example_says_what_it_asks_and_how_to_run_it(file):
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert f"python examples/{file.name}" in doc
    if int(file.name[:2]) <= N_PICTURES:
        assert "?" in doc or file.name.startswith("01")
        assert (EXAMPLES / f"{file.stem}.png").stat().st_size > 20_000


@pytest.mark.slow
def test_quickstart_shows_the_gain(tmp_path):
    picture = tmp_path / "picture.png"
    shown = run_example("01_quickstart.py", picture)
    rows = read_rows(shown)
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


@pytest.mark.slow
def test_selective_prediction_shows_whom_abstaining_serves(tmp_path):
    picture = tmp_path / "picture.png"
    shown = run_example("05_selective_prediction.py", picture)
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


@pytest.mark.slow
def test_unlearn_artifact_shows_the_gain(tmp_path):
    picture = tmp_path / "picture.png"
    shown = run_example("09_unlearn_artifact.py", picture)
    rows = read_rows(shown)
    clean, attacked = zip(
        *(rows[name] for name in ("ERM", "ERM, continued", "RR-ClArC")), strict=True
    )
    assert attacked[2] >= max(attacked[:2]) + 0.15
    assert clean[2] >= clean[0]
    before, after = re.search(r": (\S+) before, (\S+) after", shown).groups()
    assert float(after) < float(before) / 10


@pytest.mark.slow
def test_own_network_shows_what_each_layer_hides(tmp_path):
    shown = run_example("02_own_network.py", tmp_path / "picture.png")
    assert 'Found without a name: "coarse", maps of (7, 7)' in shown
    rows = read_rows(shown)
    for layer in ("fine", "middle", "coarse"):
        square, image = re.search(
            rf"^{layer} .* (\d+)% +([\d.]+)%$", shown, re.M
        ).groups()
        assert int(square) >= 70
        assert 1 < float(image) < 10
        assert rows[layer][1] >= rows["ERM, continued"][1] + 0.15
    # What masking costs is shown, too.
    assert rows["ERM"][0] >= 0.98


@pytest.mark.slow
def test_trained_net_is_mended_and_left_alone(tmp_path):
    shown = run_example("03_trained_net.py", tmp_path / "picture.png")
    rows = read_rows(shown)
    assert rows["MaskTune"][1] >= rows["continued"][1] + 0.2
    assert rows["continued"][1] >= rows["your network"][1]
    assert rows["MaskTune"][0] >= 0.9
    assert rows["MaskTune"][2] >= rows["continued"][2] + 0.1
    assert "Your weights are as they were." in shown
    training, masktune = re.search(r"Seconds: (\S+) for .*, (\S+) for", shown).groups()
    assert float(masktune) < float(training)


@pytest.mark.slow
def test_choose_threshold_shows_what_each_scorer_loses(tmp_path):
    shown = run_example("04_choose_threshold.py", tmp_path / "picture.png")
    lost = {
        name: float(points)
        for name, points in re.findall(r"^(\w+(?: \w+)?)  .*\+-.* (\S+)$", shown, re.M)
    }
    assert lost["oracle"] == 0
    for scorer in ("masked accuracy", "masked consistency"):
        assert lost[scorer] <= 0.1
        assert lost["accuracy"] >= lost[scorer] + 0.2


@pytest.mark.slow
def test_saliency_methods_shows_that_layers_find_the_square(tmp_path):
    shown = run_example("06_saliency_methods.py", tmp_path / "picture.png")
    rows = read_rows(shown)
    shares = {
        name: (int(of_map), int(of_square))
        for name, of_map, of_square in re.findall(
            r"^(\S+) +(\d+)% +(\d+)% +[\d.]+%", shown, re.M
        )
    }
    assert set(shares) == set(METHODS)
    of_layers = [name for name in METHODS if METHODS[name].needs_layer]
    of_inputs = set(METHODS) - set(of_layers)
    assert min(shares[name][1] for name in of_layers) >= 80
    assert max(shares[name][1] for name in of_inputs) <= 60
    for name in ("xgradcam", "layercam"):
        assert rows[name][1] >= rows["ERM, continued"][1] + 0.3
    for name in of_inputs:
        assert rows[name][1] < rows["xgradcam"][1] - 0.3


@pytest.mark.slow
def test_leaky_column_is_found_and_its_trap_shown(tmp_path):
    shown = run_example("07_leaky_column.py", tmp_path / "picture.png")
    rows = read_rows(shown)
    for column in (1, 2):  # conflicting, none
        assert rows["MaskTune"][column] >= rows["ERM, continued"][column] + 0.05
        assert rows["freeze_norm=False"][column] < rows["ERM, continued"][column] - 0.1
    leak, other = re.search(r"in (\d+)% of .* in ([\d.]+)%", shown, re.S).groups()
    assert int(leak) >= 80
    assert float(other) <= 5


@pytest.mark.slow
def test_each_shortcut_has_its_method(tmp_path):
    shown = run_example("08_local_and_global.py", tmp_path / "picture.png")
    local, of_colour = (read_rows(part) for part in shown.split("global:"))
    baseline = "ERM, continued"
    assert local["MaskTune"][1] >= local[baseline][1] + 0.3
    assert local["DeNetDM"][1] < local["MaskTune"][1] - 0.3
    # Over ERM continued the gain is small: within the spread of the seeds.
    assert of_colour["DeNetDM"][1] >= of_colour["ERM"][1] + 0.1
    assert of_colour["DeNetDM"][1] > of_colour[baseline][1]
    assert of_colour["MaskTune"][1] < of_colour["ERM"][1]
    # And what that costs.
    assert of_colour["DeNetDM"][0] < of_colour[baseline][0]


@pytest.mark.slow
def test_images_from_a_folder_and_the_files_to_look_at(tmp_path):
    shown = run_example("10_images_from_folder.py", tmp_path / "picture.png")
    rows = read_rows(shown)
    assert "{'high': 0, 'low': 1}" in shown
    assert rows["MaskTune"][1] >= rows["ERM, continued"][1] + 0.3
    assert rows["MaskTune"][0] >= 0.85
    conflicting, right = map(
        int,
        re.search(r"in (\d+)%\s+of these .* (\d+)% of the new labels", shown).groups(),
    )
    assert conflicting >= 65
    assert right >= 65
    assert re.search(r"^(?:(?:low|high)/\d{4}\.png, ){3}", shown, re.M)
