import base64
import io
import json
import pickle
import sys
from html.parser import HTMLParser
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch.utils.data import Dataset

from masktune_sk import (
    DeNetDMClassifier,
    MaskTuneClassifier,
    RejectOptionClassifier,
    RRClArCClassifier,
)
from masktune_sk.inspection import diagnose_shortcut
from masktune_sk.inspection._report import facts, figures, report, write
from masktune_sk.inspection._report.inputs import Parts
from masktune_sk.inspection._report.thumbnails import HIDDEN, choose_rows
from masktune_sk.metrics import aurc_loss, proportion_interval
from tests.nets import DeeperConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("jinja2")


class Page(HTMLParser):
    """What is on a page: tables by caption, images, links, headings, all text."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.images, self.addresses = {}, [], []
        self.headings, self.ids, self.tags, self.texts = [], [], [], []
        self._path, self._table = [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.addresses += [attrs[name] for name in ("src", "href") if name in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img":
            self.images.append(attrs)
        if tag == "table":
            self._table = {"caption": "", "rows": []}
        if tag == "tr":
            self._table["rows"].append([])
        if tag in ("th", "td"):
            self._table["rows"][-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append([int(tag[1]), ""])
        if tag not in ("meta", "link", "img", "br"):
            self._path.append(tag)

    def handle_endtag(self, tag):
        assert self._path.pop() == tag
        if tag == "table":
            self.tables[self._table["caption"]] = self._table["rows"]

    def handle_data(self, data):
        tag = self._path[-1] if self._path else None
        if tag == "style":
            return
        self.texts.append(data)
        if tag == "caption":
            self._table["caption"] += data
        if tag in ("th", "td"):
            self._table["rows"][-1][-1] += data
        if tag in ("h1", "h2", "h3"):
            self.headings[-1][1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def table(self, start):
        (found,) = [
            rows for name, rows in self.tables.items() if name.startswith(start)
        ]
        return found


def read(estimator, X, y=None, **params):
    """Make a report that is not written, and take it apart."""
    made = report(estimator, X, y, path=None, random_state=0, **params)
    return made, Page(made.html)


def mask_tune(net=None, **params):
    defaults = {"threshold_rule": "quantile", "mask_threshold": 0.1, "random_state": 0}
    net = tiny_net(batch_size=8) if net is None else net
    return MaskTuneClassifier(net, **(defaults | params))


def with_groups(n=60, seed=0):
    X, y = tiny_images(n, random_state=seed)
    groups = 2 * y + np.random.default_rng(seed).integers(2, size=n)
    return X, y, np.array(["a0", "a1", "b0", "b1"])[groups]


@pytest.fixture(scope="module")
def clf():
    return mask_tune().fit(*tiny_images())


@pytest.fixture(scope="module")
def continued():
    return mask_tune(masking="none").fit(*tiny_images())


@pytest.fixture(scope="module")
def page(clf, continued):
    X, y, groups = with_groups(seed=1)
    return read(clf, X, y, groups=groups, compare={"continued": continued})


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the figures, which take most of the time."""
    monkeypatch.setattr(write, "_draw", lambda *_: {})


# ---------------------------------------------------------------- the file


def test_one_file_that_asks_for_nothing(page):
    made, found = page
    assert made.html.startswith('<!doctype html>\n<html lang="en">')
    assert made.html.isascii() or '<meta charset="utf-8">' in made.html
    assert "http:" not in made.html
    assert "https:" not in made.html
    assert {"script", "iframe", "object"}.isdisjoint(tag for tag, _ in found.tags)
    for address in found.addresses:
        assert address.startswith(("data:", "#"))
    assert "@import" not in made.html
    assert "url(" not in made.html


def test_the_contents_lead_to_every_section(page):
    _, found = page
    anchors = {a.removeprefix("#") for a in found.addresses if a.startswith("#")}
    sections = {attrs["id"] for tag, attrs in found.tags if tag == "section"}
    assert anchors == sections
    assert len(sections) == 9
    assert len(set(found.ids)) == len(found.ids)


def test_headings_are_in_order_and_begin_with_the_title(page):
    made, found = page
    levels = [level for level, _ in found.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1
    assert found.headings[0][1] == made.facts["title"]
    assert f"<title>{made.facts['title']}</title>" in made.html


def test_every_picture_is_told_in_words(page):
    _, found = page
    assert len(found.images) == 60 + 4
    assert all(len(image["alt"]) > 40 for image in found.images)
    alts = " ".join(image["alt"] for image in found.images)
    assert "Accuracy by group. ERM: " in alts
    assert "Risk against coverage. ERM: risk " in alts
    assert "Training curves. ERM: 3 epochs, training loss " in alts
    assert "Where pixels are hidden, a picture for each group. " in alts
    for image in found.images:
        data = base64.b64decode(image["src"].partition(";base64,")[2])
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()


def test_every_table_has_headings_and_full_rows(page):
    _, found = page
    assert len(found.tables) == 11
    assert "" not in found.tables
    for rows in found.tables.values():
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}
        assert all(row[0] for row in rows)
    scopes = [attrs.get("scope") for tag, attrs in found.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}


def test_the_file_is_written(clf, tmp_path):
    X, y, _ = with_groups(20)
    path = tmp_path / "report.html"
    path.write_text("old")
    made = report(clf, X, y, path=str(path), n_thumbnails=2, random_state=0)
    assert made.path == path
    assert path.read_text(encoding="utf-8") == made.html
    assert f"in {str(path)!r}; accuracy in the worst class: ERM " in repr(made)
    assert made._repr_html_().startswith("<iframe")
    assert "&lt;!doctype html&gt;" in made._repr_html_()
    assert pickle.loads(pickle.dumps(made)).html == made.html


def test_the_same_state_gives_the_same_bytes_and_leaves_the_generators(clf):
    X, y, groups = with_groups()
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, second, other = (
        report(
            clf, X, y, groups=groups, path=None, n_thumbnails=5, random_state=seed
        ).html
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_pyplot_and_the_style_of_the_user_are_left_alone(clf):
    X, y, _ = with_groups(20)
    plt.close("all")
    plain = report(clf, X, y, path=None, n_thumbnails=0, random_state=0).html
    with plt.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        style = dict(plt.rcParams)
        styled = report(clf, X, y, path=None, n_thumbnails=0, random_state=0).html
        assert dict(plt.rcParams) == style
    assert styled == plain
    assert plt.get_fignums() == []


@pytest.mark.usefixtures("undrawn")
def test_inputs_and_estimator_are_not_changed(clf):
    X, y, groups = with_groups()
    copies = X.copy(), y.copy(), groups.copy()
    state = {name: t.clone() for name, t in clf.net_.module_.state_dict().items()}
    report(clf, X, y, groups=groups, path=None, n_thumbnails=3)
    for one, copy in zip((X, y, groups), copies, strict=True):
        np.testing.assert_array_equal(one, copy)
    assert all(
        torch.equal(state[k], t) for k, t in clf.net_.module_.state_dict().items()
    )


def test_sixty_four_images_of_noise_stay_below_five_megabytes():
    rng = np.random.default_rng(0)
    X = rng.random((64, 3, 100, 100), dtype=np.float32)
    y = np.arange(64) % 2
    clf = mask_tune(tiny_net(max_epochs=1, module__n_channels=3, module__width=2)).fit(
        X, y
    )
    made, found = read(clf, X, y)
    assert sum(image["alt"].startswith("Sample ") for image in found.images) == 64
    assert len(made.html.encode()) < 5e6


def test_facts_are_what_json_can_hold(page):
    held = page[0].facts
    assert json.loads(json.dumps(held)) == held


# ---------------------------------------------------------------- numbers


def test_the_table_of_groups_is_what_scikit_learn_computes(clf, continued):
    X, y, groups = with_groups(seed=2)
    # A net before and after that differ, and groups that differ.
    X[::3] += np.random.default_rng(0).uniform(0, 1.5, X[::3].shape).astype(np.float32)
    made, found = read(clf, X, y, groups=groups, compare={"continued": continued})
    head, *rows = found.table("Accuracy in %, by group")
    assert head[:3] == ["Group", "n", "ERM, %"]
    assert head[2::2] == ["ERM, %", "continued, %", "MaskTune, %"]
    rows = {row[0]: row[1:] for row in rows}
    erm = clf.classes_[clf.erm_net_.predict_proba(X).argmax(axis=1)]
    worst = []
    for i, labels in enumerate((erm, continued.predict(X), clf.predict(X))):
        shares = []
        for group in np.unique(groups):
            inside = groups == group
            shares.append(accuracy_score(y[inside], labels[inside]))
            low, high = proportion_interval(
                int((y == labels)[inside].sum()), int(inside.sum())
            )
            assert rows[group][0] == str(inside.sum())
            assert rows[group][1 + 2 * i] == f"{100 * shares[-1]:.1f}"
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            assert rows[group][2 + 2 * i] == interval
        everything = accuracy_score(y, labels)
        assert rows["All samples"][1 + 2 * i] == f"{100 * everything:.1f}"
        assert rows["Mean of the groups"][1 + 2 * i] == f"{100 * np.mean(shares):.1f}"
        assert rows["Worst group"][1 + 2 * i] == f"{100 * min(shares):.1f}"
        worst.append(min(shares))
    numbers = made.facts["accuracy"]["classifiers"]
    assert [of["worst"]["share"] for of in numbers.values()] == pytest.approx(worst)


@pytest.mark.usefixtures("undrawn")
def test_without_groups_the_tables_are_by_class(clf):
    X, y, _ = with_groups()
    _, found = read(clf, X, y, n_thumbnails=0)
    names = [row[0] for row in found.table("Accuracy in %, by class")[1:]]
    assert names == ["0", "1", "All samples", "Mean of the classes", "Worst class"]
    assert "No groups were given. A shortcut shows where it misleads" in found.text


@pytest.mark.usefixtures("undrawn")
def test_what_is_hidden_is_counted_by_class_and_group(clf):
    X, y, groups = with_groups()
    made, found = read(clf, X, y, groups=groups, n_thumbnails=0)
    hidden = 1 - clf.mask(X)[1].mean(axis=(1, 2))
    rows = {row[0]: row[1] for row in found.table("How much is hidden")[1:]}
    assert rows["class 1"] == f"{100 * hidden[y == 1].mean():.1f}"
    assert rows["group a0"] == f"{100 * hidden[groups == 'a0'].mean():.1f}"
    assert rows["All samples"] == f"{100 * hidden.mean():.1f}"
    training = made.facts["intervention"]["training"]
    assert training["masked_fraction"] == clf.masked_fraction_
    assert training["n_empty_masks"] == clf.n_empty_masks_


@pytest.mark.usefixtures("undrawn")
def test_abstention_and_training_are_those_of_the_estimator(clf):
    X, y, groups = with_groups(seed=3)
    made, found = read(clf, X, y, groups=groups, n_thumbnails=0)
    area = made.facts["abstention"]["classifiers"]["MaskTune"]["aurc"]
    assert area == aurc_loss(y, clf.predict(X), clf.selection_score(X))
    y_pred, accepted = clf.predict_with_reject(X)
    rows = {row[0]: row for row in found.table("What MaskTune accepts by its own")[1:]}
    assert rows["All samples"][2] == f"{100 * accepted.mean():.1f}"
    assert rows["b1"][2] == f"{100 * accepted[groups == 'b1'].mean():.1f}"
    right = accuracy_score(y[accepted], y_pred[accepted])
    assert rows["All samples"][4] == f"{100 * right:.1f}"
    stages = {row[0]: row[1] for row in found.table("The last epoch of each stage")[1:]}
    assert stages == {"ERM": "3", "refit 1": "1"}


@pytest.mark.usefixtures("undrawn")
def test_parameters_versions_and_seeds_are_told(clf):
    X, y, _ = with_groups(20)
    made, found = read(clf, X, y, n_thumbnails=0)
    parameters = {r[0]: r[1] for r in found.table("Parameters: MaskTuneClassifier")[1:]}
    assert set(parameters) == set(clf.get_params(deep=False))
    assert parameters["threshold_rule"] == "'quantile'"
    assert parameters["estimator"] == "NeuralNetClassifier(...)"
    told = made.facts["parameters"]["MaskTuneClassifier"]
    changed = {name for name, one in told.items() if not one["default"]}
    own = {"estimator", "threshold_rule", "mask_threshold", "random_state"}
    assert changed == own
    net = {row[0]: row[1] for row in found.table("Parameters: The net")[1:]}
    assert net["module"] == "tests.nets.TinyConvNet"
    assert net["optimizer"] == "torch.optim.adam.Adam"
    assert net["weights"] == str(sum(p.numel() for p in clf.net_.module_.parameters()))
    versions = {row[0]: row[1] for row in found.table("Versions")[1:]}
    assert versions["torch"] == version("torch")
    assert " at 0x" not in made.html


# ---------------------------------------------------------------- pictures


@pytest.mark.usefixtures("undrawn")
def test_a_strip_shows_the_image_and_what_is_hidden(clf):
    X, y, _ = with_groups(30)
    _, found = read(clf, X, y, n_thumbnails=1)
    (strip,) = [image for image in found.images if "Sample " in image["alt"]]
    row = int(strip["alt"].removeprefix("Sample ").partition(" ")[0])
    data = base64.b64decode(strip["src"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (12, 4 * 12 + 3, 3)
    kept = clf.mask(X[[row]])[1][0]
    of_mask = pixels[:, 26:38]
    np.testing.assert_array_equal((of_mask == np.round(255 * HIDDEN)).all(2), ~kept)
    np.testing.assert_array_equal(of_mask[kept], pixels[:, :12][kept])
    assert f"label {y[row]} · ERM: {clf.predict(X[[row]])[0]} (right)" in strip["alt"]
    assert f"{100 * (1 - kept.mean()):.1f} % hidden" in strip["alt"]


def test_thumbnails_are_drawn_evenly_of_the_parts():
    parts = Parts.of("group", np.array([0] * 50 + [1] * 3 + [2] * 50))
    rows = choose_rows(parts, 13, np.random.RandomState(0))
    assert np.bincount(parts.codes[rows]).tolist() == [5, 3, 5]
    assert len(set(rows.tolist())) == 13
    assert (np.diff(parts.codes[rows]) >= 0).all()
    assert len(choose_rows(parts, 1000, np.random.RandomState(0))) == 103


@pytest.mark.usefixtures("undrawn")
def test_many_groups_share_a_gallery_and_long_names_are_shortened(clf):
    X, y, _ = with_groups(60)
    _, found = read(clf, X, y, groups=np.arange(60) // 2, n_thumbnails=40)
    assert [text for level, text in found.headings if level == 3] == [
        "All samples drawn"
    ]
    assert "group 0 · " in found.text
    assert figures._short("a long name, with the bias", 12) == "a lon…e bias"
    assert figures._short("short", 12) == "short"


def test_of_vectors_features_are_shown_by_name():
    X, y = tiny_vectors()
    frame = pd.DataFrame(X, columns=["lead <1>", *"bcdef"])
    clf = MaskTuneClassifier(tiny_net(TinyMLP), random_state=0).fit(frame, y)
    _, found = read(clf, frame, y)
    assert "No pictures: the samples are vectors." in found.text
    (alt,) = [i["alt"] for i in found.images if i["alt"].startswith("How often each")]
    share = 1 - clf.mask(frame)[1].mean(axis=0)
    assert f"{frame.columns[share.argmax()]} in {100 * share.max():.1f} %" in alt
    assert len(found.images) == 4


# ---------------------------------------------------------------- estimators


def test_a_corrected_concept_is_reported():
    X, y, groups = with_groups()
    concept = np.arange(60) // 2 % 2
    X[concept == 1, :, -2:, :2] = 1
    clf = RRClArCClassifier(tiny_net(), refit_epochs=1, refit_lr=1e-3, random_state=0)
    clf.fit(X, y, concept=concept)
    made, found = read(clf, X, y, groups=groups, n_thumbnails=4)
    assert list(made.facts["accuracy"]["classifiers"]) == ["ERM", "RR-ClArC"]
    assert json.loads(json.dumps(made.facts)) == made.facts
    table = found.table("What the concept is worth to each class's logit")
    assert [row[1] for row in table[1:]] == [
        f"{value:.3g}" for value in clf.sensitivity_before_
    ]
    assert found.table("How well the concept is found")[1][1] == str(
        clf.concept_.n_concept[0]
    )
    assert 'Fit a clone with method="none"' in found.text
    assert "what ERM looks at, what RR-ClArC looks at." in found.text
    masks = np.zeros((60, 12, 12), dtype=bool)
    masks[concept == 1, -2:, :2] = True
    clf = RRClArCClassifier(
        FrozenEstimator(clf.net_), method="rrr", validation_fraction=0, refit_epochs=1
    )
    clf.fit(X, y, artifact_mask=masks)
    made, found = read(clf, X, y, groups=groups, n_thumbnails=0)
    assert list(made.facts["accuracy"]["classifiers"]) == ["Net as given", "RRR"]
    assert "no samples with and without it were given" in found.text
    rows = found.table("Share of what the net looks at that is the artifact")
    assert rows[1] == ["before", f"{100 * clf.artifact_relevance_before_:.1f}"]
    assert "No certificate: nothing has calibrated" in found.text


@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.DepthGapWarning")
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.StarvedBranchWarning")
def test_branches_are_reported():
    X, y, _ = with_groups()
    clf = DeNetDMClassifier(
        tiny_net(),
        shallow_module=DeeperConvNet,
        deep_module=DeeperConvNet,
        debiased_branch="deep",
        stage1_epochs=2,
        random_state=0,
    )
    clf.fit(X, y)
    groups = 2 * y + np.arange(60) // 2 % 2
    made, found = read(clf, X, y, groups=groups, n_thumbnails=4)
    assert list(made.facts["accuracy"]["classifiers"]) == [
        "Shallow branch (biased)",
        "Deep branch (debiased)",
        "DeNetDM",
    ]
    assert json.loads(json.dumps(made.facts)) == made.facts
    row = found.table("Accuracy in %")[-3]
    deep = clf.branch_predict_proba(X, "deep").argmax(axis=1)
    assert row[4] == f"{100 * accuracy_score(y, deep):.1f}"
    assert 'compare={"ERM": clf}, the same net fitted by itself' in found.text
    assert "taken for the debiased one, as the parameter debiased_branch says" in (
        found.text
    )
    (alt,) = [i["alt"] for i in found.images if i["alt"].startswith("Effective rank")]
    assert "bias" in alt
    made, found = read(clf, X[:4], y[:4], n_thumbnails=0)
    assert "What each layer knows: X and y must have as many samples" in found.text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("wrap", ["reject", "pipeline", "search"])
def test_estimators_inside_others_are_found(wrap):
    X, y = tiny_vectors()
    inner = MaskTuneClassifier(tiny_net(TinyMLP), random_state=0)
    if wrap == "reject":
        inner = FrozenEstimator(inner.fit(X[:40], y[:40]))
        outer = RejectOptionClassifier(inner).fit(X[40:], y[40:])
    elif wrap == "pipeline":
        outer = make_pipeline(StandardScaler(), inner).fit(X, y)
    else:
        outer = GridSearchCV(inner, {"refit_epochs": [1, 2]}, cv=2).fit(X, y)
    made, found = read(outer, X, y)
    numbers = made.facts["accuracy"]["classifiers"]
    assert list(numbers) == ["ERM", "MaskTune"]
    assert numbers["MaskTune"]["all"]["share"] == outer.score(X, y)
    assert made.facts["certificate"] is not None
    assert "What MaskTune accepts by its own threshold" in found.text


@pytest.mark.usefixtures("undrawn")
def test_other_classifiers_are_told_of_as_far_as_they_go():
    X, y = tiny_vectors()
    forest = RandomForestClassifier(5, random_state=0)
    clf = RejectOptionClassifier(forest, random_state=0).fit(X, y)
    made, found = read(clf, X, y, compare={"SVC": SVC().fit(X, y)})
    assert list(made.facts["accuracy"]["classifiers"]) == [
        "SVC",
        "RandomForestClassifier",
    ]
    assert list(made.facts["abstention"]["classifiers"]) == ["RandomForestClassifier"]
    assert "none of this package's methods: there is no net before" in found.text
    assert "its training is not known" in found.text
    assert "No pictures: there are no nets to look into." in found.text
    made, found = read(SVC().fit(X, y), X, y)
    assert "No risk-coverage curves: the classifier has no probabilities" in found.text
    assert "The estimator has no reject threshold." in found.text


@pytest.mark.usefixtures("undrawn")
def test_a_dataset_brings_its_labels(clf):
    class Pairs(Dataset):
        def __init__(self, X, y):
            self.X, self.y = torch.from_numpy(X), y.tolist()

        def __len__(self):
            return len(self.y)

        def __getitem__(self, i):
            return self.X[i], self.y[i]

    X, y, _ = with_groups(20)
    of_arrays = read(clf, X, y, n_thumbnails=3)[0]
    assert read(clf, Pairs(X, y), n_thumbnails=3)[0].html == of_arrays.html
    assert read(clf, torch.from_numpy(X), y, n_thumbnails=3)[0].html == of_arrays.html


# ---------------------------------------------------------------- what is missing


@pytest.mark.usefixtures("undrawn")
def test_the_control_is_asked_for_unless_it_is_there(clf, continued):
    X, y, _ = with_groups(20)
    asked = 'Fit a clone with masking="none", and pass compare={"ERM continued": clf}.'
    assert asked in read(clf, X, y, n_thumbnails=0)[1].text
    params = {"n_thumbnails": 0, "compare": {"ERM continued": continued}}
    assert asked not in read(clf, X, y, **params)[1].text
    made, found = read(continued, X, y, n_thumbnails=0)
    assert asked not in found.text
    assert list(made.facts["accuracy"]["classifiers"]) == ["ERM", "ERM continued"]
    assert "hides nothing and trains on as long, as a control" in found.text
    assert "A control: trained for as long, without the intervention." in found.text


@pytest.mark.usefixtures("undrawn")
def test_a_diagnosis_is_shown_made_or_asked_for(clf, monkeypatch):
    X, y, _ = with_groups(60)
    assert "No diagnosis was given." in read(clf, X, y, n_thumbnails=0)[1].text
    diagnosis = diagnose_shortcut(X, y, n_permutations=19, random_state=0)
    made, found = read(clf, X, y, n_thumbnails=0, diagnosis=diagnosis)
    assert diagnosis.verdict in found.text
    assert made.facts["diagnosis"]["verdict"] == diagnosis.verdict
    evidence = made.facts["diagnosis"]["evidence"]
    assert [row["value"] for row in evidence] == [r.value for r in diagnosis.evidence]
    assert "No diagnosis" not in found.text

    def diagnose(asked, labels, *, random_state):
        np.testing.assert_array_equal(asked.source.X, X)
        np.testing.assert_array_equal(labels, y)
        assert isinstance(random_state, int)
        return diagnosis

    monkeypatch.setattr(facts, "diagnose_shortcut", diagnose)
    made, found = read(clf, X, y, n_thumbnails=0, diagnosis=True)
    assert made.facts["diagnosis"]["verdict"] in found.text
    assert "This is a diagnosis of the samples of this report." in found.text


@pytest.mark.usefixtures("undrawn")
def test_the_certificate_is_held_against_the_samples(clf):
    X, y, groups = with_groups(100, seed=5)
    easy = pickle.loads(pickle.dumps(clf)).calibrate(X, y, max_risk=0.2)
    assert not (easy.predict(X) != y).any()
    made, found = read(easy, X, y, n_thumbnails=0)
    row = found.table("What the threshold guarantees")[1]
    certificate = easy.certificate_
    assert row[0] == "All samples"
    assert row[4] == f"{100 * certificate.certified_coverage:.1f}"
    assert row[6] == f"{100 * certificate.certified_risk:.1f}"
    assert "Asked for: risk at most 0.2." in found.text
    assert all(text in found.text for text in certificate.assumptions)
    assert "outside the bounds" not in found.text
    _, found = read(easy, X, 1 - y, n_thumbnails=0)
    assert "with a risk of 100.0 %. That is outside the bounds" in found.text

    by_group = easy.calibrate(X, y, coverage=0.5, groups=groups, per_group=True)
    _, found = read(by_group, X, y, n_thumbnails=0)
    assert "Thresholds were calibrated by group" in found.text
    made, found = read(by_group, X, y, groups=groups, n_thumbnails=0)
    assert len(found.table("What the threshold guarantees")) == 1 + 1 + 4
    accepted = by_group.predict_with_reject(X, groups=groups)[1]
    coverage = made.facts["abstention"]["threshold"]["coverage"]
    assert coverage["all"]["share"] == accepted.mean()


def test_names_are_escaped():
    X, y = tiny_images()
    names = np.array(["<script>alert(1)</script>", 'a & "b" | $x$'])
    clf = mask_tune().fit(X, names[y])
    groups = np.array(["<i>0", "<img src=x>"])[np.arange(60) // 2 % 2]
    nasty = {"</table><script>": LogisticFlat().fit(X, names[y])}
    made, found = read(
        clf, X, names[y], groups=groups, compare=nasty, title="<u>", n_thumbnails=2
    )
    assert "<script" not in made.html
    assert "<i>0" not in made.html
    assert {"script", "i", "u"}.isdisjoint(tag for tag, _ in found.tags)
    assert "<u>" in found.headings[0][1]
    rows = [row[0] for row in found.table("Accuracy in %")[1:3]]
    assert rows == ["<i>0", "<img src=x>"]


class LogisticFlat(LogisticRegression):
    """Takes images for vectors."""

    def fit(self, X, y):
        return super().fit(X.reshape(len(X), -1), y)

    def predict(self, X):
        return super().predict(X.reshape(len(X), -1))

    def predict_proba(self, X):
        return super().predict_proba(X.reshape(len(X), -1))


# ---------------------------------------------------------------- bad input


def test_bad_input_is_refused_before_anything_is_computed(clf, tmp_path, monkeypatch):
    X, y, groups = with_groups(20)
    monkeypatch.setattr(
        "masktune_sk.inspection._report.write.collect",
        lambda *_: pytest.fail("something was computed"),
    )
    fitted = LogisticFlat().fit(X, y + 1)

    def refused(error, match, estimator=clf, X=X, y=y, **params):
        params = {"path": None} | params
        with pytest.raises(error, match=match):
            report(estimator, X, y, **params)

    refused(NotFittedError, "not fitted yet", MaskTuneClassifier())
    refused(TypeError, "got StandardScaler, which has no predict", StandardScaler())
    scaler = StandardScaler().fit(X[:, 0, 0])
    scaler.predict = scaler.transform
    refused(TypeError, "StandardScaler has no classes_", scaler)
    refused(ValueError, r"y must have shape \(20,\), one label a row", y=y[:5])
    refused(ValueError, "y has labels that fit did not see: .7.", y=y * 0 + 7)
    refused(ValueError, "y is None, and X brings no labels", y=None)
    refused(ValueError, "Found 0 sample", X=X[:0], y=y[:0])
    refused(ValueError, r"groups must have shape \(20,\)", groups=groups[:3])
    refused(ValueError, "all strings or all integers", groups=[None, *groups[1:]])
    missing = tmp_path / "no" / "report.html"
    refused(ValueError, "folder of path=.* does not exist. Make it", path=missing)
    refused(ValueError, "is a folder. Add a name to it", path=tmp_path)
    refused(ValueError, "n_thumbnails must be a number of samples", n_thumbnails=-1)
    refused(ValueError, "n_thumbnails must be a number of samples", n_thumbnails=2.5)
    refused(ValueError, r"confidence must be in \(0, 1\)", confidence=95)
    refused(TypeError, "True to run it on X and y, or None; got str", diagnosis="yes")
    refused(TypeError, "compare must be a dict of name to fitted", compare=[fitted])
    refused(TypeError, "compare must be a dict of name to fitted", compare={1: fitted})
    refused(ValueError, "has the name 'ERM', which is that of", compare={"ERM": clf})
    refused(TypeError, r"compare\['a'\] must be a fitted classifier", compare={"a": 1})
    unfitted = {"a": MaskTuneClassifier()}
    refused(NotFittedError, r"compare\['a'\] is not fitted. Fit it", compare=unfitted)
    refused(ValueError, r"was fitted on the classes \[1 2\]", compare={"a": fitted})


@pytest.mark.parametrize("name", ["jinja2", "matplotlib.pyplot"])
def test_what_is_not_installed_is_named_with_the_extra(clf, monkeypatch, name):
    X, y, _ = with_groups(20)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"report needs .*masktune_sk\[report\]"):
        report(clf, X, y, path=None)
