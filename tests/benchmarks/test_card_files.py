"""Sets of RR-ClArC, on small made copies with the true layout."""

import csv

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from masktune_sk.datasets import make_artifact

LESIONS = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]


@pytest.fixture
def files(bench):
    import card_files

    return card_files


def draw(path, number, size=(40, 36)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(number).randint(0, 256, (*size[::-1], 3))
    Image.fromarray(noise.astype(np.uint8)).save(path)


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_isic(home, n=40):
    root = home / "isic2019"
    rows = [(f"ISIC_{i:07}", *(float(j == i % 2) for j in range(9))) for i in range(n)]
    write_csv(root / "ISIC_2019_Training_GroundTruth.csv", ["image", *LESIONS], rows)
    for i, (name, *_) in enumerate(rows):
        draw(root / "ISIC_2019_Training_Input" / f"{name}.jpg", i)


def write_imagenet(home, n=20):
    for i in range(3 * n):
        draw(home / "imagenet" / "train" / f"n0{i % 3}" / f"{i}.JPEG", i)
    for i in range(6):
        draw(home / "imagenet" / "val" / f"n0{i % 3}" / f"{i}.JPEG", i)


def sets_of(bench, name, home):
    (card,) = bench.card.read_cards(name)
    source = bench.card_data.Source(home, download=False, seed=0)
    return bench.card_data.load_sets(card, source)


def test_isic_is_planted_as_it_is_read(bench, tmp_path):
    write_isic(tmp_path, n=200)
    train, tests = sets_of(bench, "isic", tmp_path)
    assert len(train.y) == 160
    assert train.image_shape == (3, 224, 224)
    assert train.artifact_mask is None
    # A tenth of melanomas, and no other lesion.
    assert 0 < train.concept[train.y == 0].mean() < 0.25
    assert not train.concept[train.y == 1].any()
    assert set(train.groups) == {"MEL, clean", "MEL, lsb", "NV, clean"}
    assert_array_equal(train.aligned, train.concept == (train.y == 0))
    clean, attacked = tests["clean"], tests["attacked"]
    assert len(clean.y) == 20
    assert not clean.concept.any()
    assert attacked.concept.all()
    image, label = clean.X[3]
    other, _ = attacked.X[3]
    assert label == clean.y[3]
    # Three of eight bits, of pixels brought to -1..1.
    difference = (image - other).abs().max().item()
    assert 0 < difference <= 2 * 7 / 255 + 1e-6
    torch.testing.assert_close(attacked.X[3][0], other, rtol=0, atol=0)


@pytest.mark.parametrize("artifact", ["timestamp", "brightness", "lsb", "text"])
def test_a_file_is_planted_as_an_array_would_be(files, tmp_path, artifact):
    write_imagenet(tmp_path)
    which = {"classes": 1, "proportion": 0.5, "proportion_other": 0.2}
    which |= {"sampling": "bernoulli", "relabel_other": True}

    def planted():
        images = files.read_image_folder(tmp_path / "imagenet", subset="train")
        return files.PlantedFiles(images, artifact, side=32, seed=5, **which)

    data = planted()
    assert 1 < data.concept.sum() < len(data) - 1
    raw = planted()
    raw.concept = np.zeros_like(raw.concept)
    X = np.stack([np.rint(255 * raw[i][0].numpy()) for i in range(len(raw))])
    expected = make_artifact(
        X.astype(np.uint8),
        raw.images.targets,
        artifact=artifact,
        random_state=5,
        **which,
    )
    for name in ("concept", "aligned"):
        assert_array_equal(getattr(data, name), expected[name])
    assert_array_equal(data.targets, expected.target)
    for i, (image, label) in enumerate(data):
        assert_array_equal(np.rint(255 * image.numpy()), expected.data[i])
        assert label == expected.target[i]
        if i == len(data) - 1:
            break


def test_imagenet(bench, tmp_path):
    write_imagenet(tmp_path)
    train, tests = sets_of(bench, "imagenet-timestamp", tmp_path)
    assert len(train.y) == 54  # nine tenths of 60
    assert 0.2 < train.concept[train.y == 0].mean() < 0.8
    assert not train.concept[train.y > 0].any()
    for test in tests.values():
        # Who gets a timestamp keeps the label in a test.
        assert_array_equal(test.y, [0, 0, 1, 1, 2, 2])
    assert not tests["clean"].concept.any()
    assert tests["attacked"].concept.all()


def test_what_imagenet_lacks_is_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folders of classes in .*/train"):
        files.read_image_folder(tmp_path, subset="train")
    write_imagenet(tmp_path)
    for path in (tmp_path / "imagenet" / "val" / "n02").iterdir():
        path.unlink()
    (tmp_path / "imagenet" / "val" / "n02").rmdir()
    with pytest.raises(FileNotFoundError, match="val lacks the folder n02"):
        files.read_image_folder(tmp_path / "imagenet", subset="test")


def test_bone_age(bench, tmp_path):
    root = tmp_path / "bone_age"
    rows = [(1377 + i, 1 + 227 * i / 99, i % 2 == 0) for i in range(100)]
    write_csv(root / "boneage-training-dataset.csv", ["id", "boneage", "male"], rows)
    for i, (number, *_) in enumerate(rows):
        draw(root / "boneage-training-dataset" / f"{number}.png", i)
    train, tests = sets_of(bench, "bone-age", tmp_path)
    assert len(train.y) == 80
    assert train.concept[train.y == 2].any()
    assert not train.concept[train.y != 2].any()
    before, after = (tests[name].X[0][0] for name in ("clean", "attacked"))
    # A blend with white, rounded down, in units of 255 times the deviation.
    levels = (255 * (0.0888 * torch.stack([before, after]) + 0.184)).round()
    assert_array_equal(levels[1], torch.floor(0.7 * levels[0] + 0.3 * 255))


def test_celeba_with_collars(bench, tmp_path):
    root = tmp_path / "celeba"
    n = 1000
    rng = np.random.RandomState(0)
    tie, blond = rng.rand(n) < 0.2, rng.rand(n) < 0.3
    lines, parts = [str(n), "Blond_Hair Wearing_Necktie"], []
    image = Image.new("RGB", (178, 218))
    (root / "img_align_celeba").mkdir(parents=True)
    for i in range(n):
        lines.append(f"{i + 1:06}.jpg {2 * blond[i] - 1} {2 * tie[i] - 1}")
        parts.append(f"{i + 1:06}.jpg {(i >= 800) + (i >= 900)}")
        image.save(root / "img_align_celeba" / f"{i + 1:06}.jpg")
    (root / "list_attr_celeba.txt").write_text("\n".join(lines))
    (root / "list_eval_partition.txt").write_text("\n".join(parts))
    train, tests = sets_of(bench, "celeba-collar", tmp_path)
    n_chosen = (tie | (np.arange(n) % 10 == 0)).sum()
    rare = (train.y == 1) & (train.concept == 1)
    n_kept = len(train.y) - rare.sum()
    # Of blond images with a necktie a tenth is left.
    assert 0 < rare.sum() <= 0.1 * (tie & blond).sum() + 1
    assert abs(n_kept - 0.8 * (n_chosen - (tie & blond).sum())) < 15
    clean, attacked = tests["clean"], tests["attacked"]
    assert not clean.concept.any()
    assert attacked.concept.all()
    assert 0.1 * n_chosen < len(clean.y) + len(attacked.y) < 0.2 * n_chosen
    files = [set(some.X.files.tolist()) for some in (train, clean, attacked)]
    assert not files[0] & (files[1] | files[2])
    assert_array_equal(train.aligned, train.y != train.concept)
    black = train.X[0][0]
    assert black.shape == (3, 224, 224)
    torch.testing.assert_close(black, torch.full_like(black, -1))


def test_photographs_are_brought_to_the_cards_size(bench, tmp_path):
    for part in ("train/align", "train/conflict/1pct", "train/conflict/5pct", "test"):
        for label in range(6):
            draw(tmp_path / "bar" / part / str(label) / f"bar_{label}_{label}.png", 1)
    for card in bench.card.read_cards("bar"):
        source = bench.card_data.Source(tmp_path, download=False, seed=0)
        train, tests = bench.card_data.load_sets(card, source)
        assert train.image_shape == tests["test"].image_shape == (3, 32, 32)
        assert len(train.y) == 12
        assert train.X[0][0].min() < -0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.ConceptWarning")
def test_a_card_of_files_runs_from_end_to_end(bench, write, tmp_path, capsys):
    write_isic(tmp_path, n=60)
    text = (bench.path / "cards" / "isic.toml").read_text()
    path = write(
        ('artifact = "lsb"\n', 'artifact = "brightness"\nside = 32\n'),
        ("lsb_factor = 3\n", ""),
        ("proportion = 0.1\n", "proportion = 0.5\n"),
        ('"resnet18"\nweights = "resnet18-imagenet.pth"', '"small_cnn"'),
        ("epochs = 150", "epochs = 1"),
        ("refit_epochs = 10", "refit_epochs = 1"),
        ('target_layer = "layer4"', 'target_layer = "features"'),
        ("batch_size = 128", "batch_size = 16"),
        text=text,
    )
    out = tmp_path / "out.csv"
    where = ["--data-home", str(tmp_path), "--out", str(out), "--device", "cpu"]
    assert not bench.reproduce.main([str(path), "--seeds", "1", *where])
    shown = capsys.readouterr().out
    for method in ("ERM continued", "fine-tuned", "A-ClArC", "P-ClArC", "RR-ClArC"):
        assert f"seed 0, {method}: clean" in shown
