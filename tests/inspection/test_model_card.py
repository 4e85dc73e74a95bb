import json
import sys

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score

from masktune_sk import MaskTuneClassifier
from masktune_sk.inspection._report import model_card
from masktune_sk.inspection._report.render import escape_markdown
from tests.nets import TinyMLP, tiny_images, tiny_net, tiny_vectors

pytest.importorskip("jinja2")


def fit(net, X, y, **params):
    return MaskTuneClassifier(net, random_state=0, **params).fit(X, y)


def card_of(estimator, X, y, **params):
    return model_card(estimator, X, y, path=None, random_state=0, **params)


def head_of(card):
    """Read the front matter: names, and values that are JSON, or lists of such."""
    lines = card.split("\n")
    end = lines.index("---", 1)
    assert lines[0] == "---"
    head, name = {}, None
    for line in lines[1:end]:
        if line.startswith("- "):
            head[name].append(json.loads(line[2:]))
            continue
        name, _, value = line.partition(": ")
        name = name.removesuffix(":")
        head[name] = json.loads(value) if value else []
    return head


def cells_of(line):
    """Split a row where Markdown does: at every bar that is not escaped."""
    return [cell.strip() for cell in line.replace("\\|", "\0").split("|")[1:-1]]


def tables_of(card):
    """Return the rows of each table, by the line before it."""
    lines, tables = card.split("\n"), {}
    for i, line in enumerate(lines):
        if line.startswith("| :--") or line.startswith("| --"):
            rows = [cells_of(lines[i - 1])]
            for row in lines[i + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells_of(row))
            assert lines[i - 2] == ""
            tables[lines[i - 3]] = rows
    return tables


@pytest.fixture(scope="module")
def vectors():
    X, y = tiny_vectors()
    return fit(tiny_net(TinyMLP), X, y), X, y


@pytest.fixture(scope="module")
def card(vectors):
    clf, X, y = vectors
    return card_of(clf, X, y, groups=2 * y + np.arange(80) // 2 % 2, title="Two heaps")


def test_the_head_tells_hubs_what_it_is(card):
    head = head_of(card)
    assert head["library_name"] == "masktune_sk"
    assert head["pipeline_tag"] == "tabular-classification"
    assert "shortcut-learning" in head["tags"]
    assert head["metrics"] == ["accuracy"]
    X, y = tiny_images(20)
    clf = fit(tiny_net(max_epochs=1), X, y)
    assert head_of(card_of(clf, X, y))["pipeline_tag"] == "image-classification"


def test_headings_and_what_they_stand_over(card):
    lines = card.split("\n")
    headings = [line for line in lines if line.startswith("#")]
    assert headings[0] == "# Two heaps"
    assert headings[1] == "## Intended use and limits"
    assert "## Accuracy by group" in headings
    assert "## Certificate" in headings
    assert "## Parameters, versions and seeds" in headings
    assert "It does not help against a shortcut in the colour" in card
    assert "\n\n\n" not in card
    assert card.endswith("|\n")
    assert not any(line != line.rstrip() for line in lines)


def test_tables_are_whole_and_hold_the_numbers(card, vectors):
    clf, X, y = vectors
    tables = tables_of(card)
    assert len(tables) == 11
    for rows in tables.values():
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}
    rows = {row[0]: row for row in tables["Accuracy in %, by group:"]}
    groups = 2 * y + np.arange(80) // 2 % 2
    right = accuracy_score(y[groups == 3], clf.predict(X[groups == 3]))
    assert rows["3"][4] == f"{100 * right:.1f}"
    assert rows["**All samples**"][4] == f"{100 * clf.score(X, y):.1f}"
    seeds = dict(map(tuple, tables["Seeds:"]))
    assert seeds["estimator, random\\_state"] == "0"


def test_the_card_is_written(vectors, tmp_path, monkeypatch):
    clf, X, y = vectors
    path = tmp_path / "README.md"
    text = model_card(clf, X, y, path=path, random_state=0)
    assert path.read_text(encoding="utf-8") == text
    assert card_of(clf, X, y) == text
    monkeypatch.chdir(tmp_path)
    assert model_card(clf, X, y)
    assert (tmp_path / "model_card.md").exists()


def test_names_show_as_they_are():
    X, y = tiny_vectors()
    names = np.array(["a|b", "*c*\n<b>"])
    clf = fit(tiny_net(TinyMLP), X, names[y])
    card = card_of(clf, X, names[y], groups=names[np.arange(80) // 2 % 2])
    assert "<b>" not in card
    rows = tables_of(card)["Accuracy in %, by group:"]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [row[0] for row in rows[1:3]] == ["\\*c\\* &lt;b&gt;", "a\0b"]
    assert escape_markdown("# `x` & _y_\n[z]\\") == (
        "\\# \\`x\\` &amp; \\_y\\_ \\[z\\]\\\\"
    )


def test_other_classifiers_have_a_card_too():
    X, y = tiny_vectors()
    card = card_of(RandomForestClassifier(5, random_state=0).fit(X, y), X, y)
    assert "No intended use is known: the classifier is none of" in card
    assert "its training is not known" in card
    assert head_of(card)["pipeline_tag"] == "tabular-classification"


def test_it_needs_no_matplotlib(vectors, monkeypatch):
    clf, X, y = vectors
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert card_of(clf, X, y)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"model_card needs jinja2.*sk\[report\]"):
        card_of(clf, X, y)


def test_bad_input_is_refused(vectors, tmp_path):
    clf, X, y = vectors
    with pytest.raises(NotFittedError, match="not fitted yet"):
        card_of(MaskTuneClassifier(), X, y)
    with pytest.raises(ValueError, match="does not exist. Make it first"):
        model_card(clf, X, y, path=tmp_path / "no" / "card.md")
    with pytest.raises(ValueError, match="one label a row"):
        card_of(clf, X, y[:3])
