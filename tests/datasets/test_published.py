"""Tests of the loaders of published sets, on small made copies with the true layout."""

import csv
import hashlib
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from masktune_sk.datasets import (
    BiasedImageDataset,
    fetch_bar,
    fetch_bffhq,
    fetch_bone_age,
    fetch_cats_vs_dogs,
    fetch_celeba,
    fetch_imagenet9,
    fetch_isic2019,
    fetch_waterbirds,
)
from masktune_sk.datasets._fetch.local_copy import random_subset

ORIGINS = {
    fetch_waterbirds: "https://nlp.stanford.edu/data/dro/waterbird_complete95",
    fetch_celeba: "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    fetch_imagenet9: "https://github.com/MadryLab/backgrounds_challenge",
    fetch_cats_vs_dogs: "https://www.microsoft.com/en-us/download/details.aspx?id=54765",
    fetch_bffhq: "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled",
    fetch_bar: "https://github.com/alinlab/BAR",
    fetch_isic2019: "https://challenge.isic-archive.com/data/#2019",
    fetch_bone_age: "https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone",
}


def draw(path, size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def change_cell(path, row, column, value):
    """Change one value of a csv; row 0 is the header."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    rows[row][column] = value
    write_csv(path, rows[0], rows[1:])


# ---------------------------------------------------------------- Waterbirds

WATERBIRDS = [  # file, y, split, place
    ("001.Black_footed_Albatross/Black_Footed_Albatross_0001.jpg", 1, 0, 1),
    ("001.Black_footed_Albatross/Black_Footed_Albatross_0002.jpg", 1, 1, 0),
    ("004.Groove_billed_Ani/Groove_Billed_Ani_0001.jpg", 0, 0, 0),
    ("004.Groove_billed_Ani/Groove_Billed_Ani_0002.jpg", 0, 0, 1),
    ("004.Groove_billed_Ani/Groove_Billed_Ani_0003.jpg", 0, 2, 0),
]
WATERBIRDS_FOLDER = "waterbird_complete95_forest2water2"


@pytest.fixture
def waterbirds(tmp_path):
    folder = tmp_path / WATERBIRDS_FOLDER
    header = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    rows = [
        (i, file, y, split, place, f"/o/ocean/{i}.jpg")
        for i, (file, y, split, place) in enumerate(WATERBIRDS, start=1)
    ]
    write_csv(folder / "metadata.csv", header, rows)
    for file, *_ in WATERBIRDS:
        draw(folder / file)
    return tmp_path


@pytest.mark.parametrize("inside", [True, False])
def test_waterbirds(waterbirds, inside):
    root = waterbirds / WATERBIRDS_FOLDER if inside else waterbirds
    dataset = fetch_waterbirds(root)
    assert isinstance(dataset, BiasedImageDataset)
    assert_array_equal(dataset.targets, [1, 0, 0])
    assert_array_equal(dataset.bias, [1, 0, 1])
    assert_array_equal(dataset.groups, [3, 0, 1])
    assert dataset.group_names == [
        "landbird, land",
        "landbird, water",
        "waterbird, land",
        "waterbird, water",
    ]
    assert_array_equal(dataset.metadata["img_id"], ["1", "3", "4"])
    assert dataset.metadata["place_filename"][0] == "/o/ocean/1.jpg"
    image, label = dataset[0]
    assert image.shape == (3, 224, 224)
    assert label == 1
    assert "Waterbirds (subset='train')" in dataset.DESCR
    assert_array_equal(fetch_waterbirds(root, subset="val").groups, [2])
    assert_array_equal(fetch_waterbirds(root, subset="test").groups, [0])


def test_waterbirds_are_resized_and_cropped_as_published(waterbirds):
    path = waterbirds / WATERBIRDS_FOLDER / WATERBIRDS[0][0].replace(".jpg", ".png")
    pixels = np.random.RandomState(0).randint(0, 256, (90, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    path.rename(path.with_suffix(".jpg"))
    image, _ = fetch_waterbirds(waterbirds)[0]
    resized = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((16, 16, 240, 240))).transpose(2, 0, 1)
    assert_array_equal((image * 255).round().byte(), expected)


def test_waterbirds_names_missing_images_of_every_subset(waterbirds):
    folder = waterbirds / WATERBIRDS_FOLDER
    for file in (WATERBIRDS[1][0], WATERBIRDS[4][0]):
        (folder / file).unlink()
    message = (
        f"2 of 5 images are missing: {WATERBIRDS_FOLDER}/{WATERBIRDS[1][0]}, "
        f"{WATERBIRDS_FOLDER}/{WATERBIRDS[4][0]}. Looked for them in {waterbirds}. "
        f"Waterbirds is at {ORIGINS[fetch_waterbirds]}"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        fetch_waterbirds(waterbirds)
    assert len(fetch_waterbirds(waterbirds, check="none")) == 3


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (
            0,
            2,
            "label",
            "has no column y; its columns are img_id, img_filename, label, ",
        ),
        (2, 2, "2", "has '2' in column y, data row 2; expected an integer from 0 to 1"),
        (3, 3, "-1", "has '-1' in column split, data row 3; .* from 0 to 2"),
        (1, 4, "ocean", "has 'ocean' in column place, data row 1"),
    ],
)
def test_waterbirds_with_a_damaged_table(waterbirds, row, column, value, message):
    path = waterbirds / WATERBIRDS_FOLDER / "metadata.csv"
    change_cell(path, row, column, value)
    with pytest.raises(ValueError, match=f"Waterbirds: {path} {message}"):
        fetch_waterbirds(waterbirds)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"img_filename,y,split,place\n", "has a header and no rows"),
        (
            b"img_filename,y,split,place\na.jpg,1,0,1\nb.jpg,1",
            "has 2 values in data row 2, and 4 columns; it may have been cut short",
        ),
        (b"\xff\xfe\x00\x01", "is no table of text"),
    ],
)
def test_waterbirds_with_no_table(waterbirds, content, message):
    (waterbirds / WATERBIRDS_FOLDER / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        fetch_waterbirds(waterbirds)


def test_a_table_may_begin_with_the_mark_of_spreadsheets(waterbirds):
    path = waterbirds / WATERBIRDS_FOLDER / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "img_id" in fetch_waterbirds(waterbirds).metadata


def test_a_subset_without_images(waterbirds):
    change_cell(waterbirds / WATERBIRDS_FOLDER / "metadata.csv", 2, 3, "0")
    message = "Waterbirds: none of the 5 images in .* is in this subset"
    with pytest.raises(ValueError, match=message):
        fetch_waterbirds(waterbirds, subset="val")


# ---------------------------------------------------------------- CelebA

ATTRIBUTES = ["Bald", "Blond_Hair", "Male", "Wearing_Necktie"]
FACES = [  # attributes, partition
    ([-1, 1, -1, -1], 0),
    ([-1, -1, 1, 1], 0),
    ([1, 1, 1, -1], 0),
    ([-1, -1, -1, -1], 1),
    ([-1, 1, 1, 1], 2),
]
NAMES = [f"{i:06}.jpg" for i in range(1, 6)]


def write_celeba(attributes, partition, images):
    """Write CelebA to these paths; a table is .txt, as official, or .csv, as Kaggle."""
    for path in (attributes, partition):
        path.parent.mkdir(parents=True, exist_ok=True)
    if attributes.suffix == ".csv":
        rows = [(name, *face) for name, (face, _) in zip(NAMES, FACES, strict=True)]
        write_csv(attributes, ["image_id", *ATTRIBUTES], rows)
        rows = [(name, part) for name, (_, part) in zip(NAMES, FACES, strict=True)]
        write_csv(partition, ["image_id", "partition"], rows)
    else:
        lines = [str(len(FACES)), " ".join(ATTRIBUTES) + " "]
        for name, (face, _) in zip(NAMES, FACES, strict=True):
            lines.append(name + " " + " ".join(f"{value:2}" for value in face))
        attributes.write_text("\n".join(lines) + "\n")
        lines = [f"{n} {part}" for n, (_, part) in zip(NAMES, FACES, strict=True)]
        partition.write_text("\n".join(lines) + "\n")
    for name in NAMES:
        draw(images / name, size=(178, 218))


@pytest.fixture
def celeba(tmp_path):
    write_celeba(
        tmp_path / "list_attr_celeba.txt",
        tmp_path / "list_eval_partition.txt",
        tmp_path / "img_align_celeba",
    )
    return tmp_path


@pytest.mark.parametrize(
    ("attributes", "partition", "images"),
    [
        ("list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"),
        ("list_attr_celeba.csv", "list_eval_partition.csv", "img_align_celeba"),
        (
            "list_attr_celeba.csv",
            "list_eval_partition.csv",
            "img_align_celeba/img_align_celeba",
        ),
        (
            "Anno/list_attr_celeba.txt",
            "Eval/list_eval_partition.txt",
            "Img/img_align_celeba",
        ),
        (
            "celeba/list_attr_celeba.txt",
            "celeba/list_eval_partition.txt",
            "celeba/img_align_celeba",
        ),
    ],
    ids=["one folder", "Kaggle", "Kaggle nested", "official", "torchvision"],
)
def test_celeba(tmp_path, attributes, partition, images):
    write_celeba(tmp_path / attributes, tmp_path / partition, tmp_path / images)
    dataset = fetch_celeba(tmp_path)
    assert_array_equal(dataset.targets, [1, 0, 1])
    assert_array_equal(dataset.bias, [0, 1, 1])
    assert_array_equal(dataset.groups, [2, 1, 3])
    assert dataset.group_names[3] == "blond hair, male"
    assert dataset.group_names[0] == "not blond hair, not male"
    assert list(dataset.metadata) == ATTRIBUTES
    assert_array_equal(dataset.metadata["Wearing_Necktie"], [False, True, False])
    assert dataset[2][0].shape == (3, 224, 224)
    assert_array_equal(fetch_celeba(tmp_path, subset="val").groups, [0])
    assert_array_equal(fetch_celeba(tmp_path, subset="test").groups, [3])


def test_celeba_with_other_attributes(celeba):
    dataset = fetch_celeba(celeba, target="Bald", bias="Wearing_Necktie")
    assert_array_equal(dataset.targets, [0, 0, 1])
    assert_array_equal(dataset.bias, [0, 1, 0])
    assert dataset.bias_names == ["not wearing necktie", "wearing necktie"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"target": "Blonde_Hair"},
            "target must be an attribute of .*list_attr_celeba.txt; got 'Blonde_Hair'. "
            "Close to it: Blond_Hair. All: Bald, Blond_Hair, Male, Wearing_Necktie",
        ),
        ({"bias": "xyz"}, "bias must be an attribute .* Close to it: none"),
        ({"bias": "Blond_Hair"}, "must be two attributes; both are 'Blond_Hair'"),
    ],
)
def test_celeba_without_the_attribute(celeba, parameters, message):
    with pytest.raises(ValueError, match=message):
        fetch_celeba(celeba, **parameters)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (
            "attr",
            "5\n",
            "9\n",
            "has 5 rows, and says '9' in its first line; .*cut short",
        ),
        ("attr", "000005.jpg -1  1  1  1\n", "", "has 4 rows, and says '5'"),
        (
            "attr",
            "000005.jpg -1  1  1  1",
            "000005.jpg -1  1",
            "is not the table",
        ),
        (
            "attr",
            "000003.jpg  1",
            "000003.jpg  7",
            "has attributes other than -1 and 1",
        ),
        ("attr", "000003.jpg  1", "000003.jpg  x", "is not the table expected .*'x'"),
        ("eval", "000004.jpg 1\n", "", "does not list the same images in the same or"),
        ("eval", "000004.jpg 1", "000004.jpg 3", "has subsets other than 0, 1 and 2"),
        ("eval", "000004.jpg 1", "000004.jpg", "is not the table expected"),
    ],
)
def test_celeba_with_a_damaged_table(celeba, table, old, new, message):
    names = {"attr": "list_attr_celeba.txt", "eval": "list_eval_partition.txt"}
    path = celeba / names[table]
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"CelebA: {path} {message}"):
        fetch_celeba(celeba)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "does not name its attributes"), ("0\nBald Male\n", "has no rows")],
)
def test_celeba_with_an_empty_table(celeba, content, message):
    (celeba / "list_attr_celeba.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        fetch_celeba(celeba)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "list_attr_celeba.txt",
            "list_attr_celeba.txt was not found. Looked for {0}/list_attr_celeba.txt, "
            "{0}/list_attr_celeba.csv, {0}/celeba/list_attr_celeba.txt, ",
        ),
        (
            "list_eval_partition.txt",
            "list_eval_partition.txt was not found. Looked for",
        ),
    ],
)
def test_celeba_without_a_table(celeba, name, message):
    (celeba / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(message.format(celeba))):
        fetch_celeba(celeba)


# ---------------------------------------------------------------- ImageNet-9

IN9_FOLDERS = [
    "00_dog",
    "01_bird",
    "02_wheeled vehicle",
    "03_reptile",
    "04_carnivore",
    "05_insect",
    "06_musical instrument",
    "07_primate",
    "08_fish",
]


def write_imagenet9(top, n=1):
    for folder in IN9_FOLDERS:
        for i in range(n):
            draw(top / folder / f"n0208_{i}.JPEG")


@pytest.mark.parametrize("split", ["in9l/{}", "{}"])
def test_imagenet9(tmp_path, split):
    write_imagenet9(tmp_path / split.format("train"), n=2)
    write_imagenet9(tmp_path / split.format("val"))
    dataset = fetch_imagenet9(tmp_path)
    assert_array_equal(dataset.targets, np.repeat(np.arange(9), 2))
    assert_array_equal(dataset.bias, dataset.targets)
    assert dataset.class_names == [name[3:] for name in IN9_FOLDERS]
    assert dataset.bias_names[8] == "background of fish"
    assert dataset[0][0].shape == (3, 224, 224)
    assert_array_equal(fetch_imagenet9(tmp_path, subset="val").targets, np.arange(9))


@pytest.mark.parametrize("place", ["test/{}/val", "bg_challenge/{}/val", "{}/val"])
@pytest.mark.parametrize("variant", ["original", "mixed_same", "only_bg_t"])
def test_variants_of_imagenet9(tmp_path, place, variant):
    write_imagenet9(tmp_path / place.format(variant))
    dataset = fetch_imagenet9(tmp_path, subset="test", variant=variant)
    assert_array_equal(dataset.targets, np.arange(9))
    assert_array_equal(dataset.bias, np.arange(9))
    assert f"variant='{variant}'" in dataset.DESCR


@pytest.mark.parametrize("variant", ["mixed_rand", "mixed_next", "only_fg"])
def test_background_that_is_not_of_the_own_class(tmp_path, variant):
    write_imagenet9(tmp_path / "bg_challenge" / variant / "val")
    dataset = fetch_imagenet9(tmp_path, subset="test", variant=variant)
    assert_array_equal(dataset.bias, [-1] * 9)


def test_folders_of_imagenet9(tmp_path):
    write_imagenet9(tmp_path / "train")
    (tmp_path / "train" / ".cache").mkdir()
    draw(tmp_path / "train" / "00_dog" / "._n0208_0.JPEG")
    (tmp_path / "train" / "00_dog" / "list.txt").write_text("no image")
    assert len(fetch_imagenet9(tmp_path)) == 9

    draw(tmp_path / "train" / "09_tree" / "n1.JPEG")
    with pytest.raises(ValueError, match="09_tree is of class 9; expected 0 to 8"):
        fetch_imagenet9(tmp_path)
    (tmp_path / "train" / "09_tree").rename(tmp_path / "train" / "8_tree")
    with pytest.raises(ValueError, match="8_tree is of the same class as 08_fish"):
        fetch_imagenet9(tmp_path)
    (tmp_path / "train" / "8_tree").rename(tmp_path / "tree")
    (tmp_path / "train" / "07_primate").rename(tmp_path / "primate")
    with pytest.raises(ValueError, match=r"has no folder 07_primate\. .*MadryLab"):
        fetch_imagenet9(tmp_path)
    (tmp_path / "train" / "07_primate").mkdir()
    with pytest.raises(ValueError, match="07_primate holds no images"):
        fetch_imagenet9(tmp_path)


# ---------------------------------------------------------------- Cats vs Dogs


@pytest.fixture
def pets(tmp_path):
    """The archive of Microsoft, with its two damaged files and some of the system's."""
    for animal, bad in (("Cat", 666), ("Dog", 11702)):
        folder = tmp_path / "PetImages" / animal
        for i in range(10):
            draw(folder / f"{i}.jpg")
        (folder / f"{bad}.jpg").write_bytes(b"")
        (folder / "Thumbs.db").write_bytes(b"x")
    return tmp_path


@pytest.fixture
def kaggle(tmp_path):
    for i in range(10):
        for animal in ("cat", "dog"):
            draw(tmp_path / "train" / f"{animal}.{i}.jpg")
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_cats_vs_dogs_of_microsoft(pets, inside):
    root = pets / "PetImages" if inside else pets
    dataset = fetch_cats_vs_dogs(root, subset="all", check="decode")
    assert_array_equal(np.bincount(dataset.targets), [10, 10])
    for file, target in zip(dataset.files, dataset.targets, strict=True):
        assert ("Cat/", "Dog/")[target] in file
    assert dataset.class_names == ["cat", "dog"]
    assert_array_equal(dataset.bias, [-1] * 20)
    assert dataset[0][0].shape == (3, 64, 64)
    prefix = "" if inside else "PetImages/"
    assert f"Left out: {prefix}Cat/666.jpg, {prefix}Dog/11702.jpg." in dataset.DESCR


def test_a_repaired_file_is_read(pets):
    draw(pets / "PetImages" / "Cat" / "666.jpg")
    dataset = fetch_cats_vs_dogs(pets, subset="all")
    assert len(dataset) == 21
    assert "Left out: PetImages/Dog/11702.jpg." in dataset.DESCR


def test_other_damaged_files_are_named_and_can_be_skipped(pets):
    bad = "PetImages/Dog/3.jpg"
    (pets / bad).write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"1 of 20 images can't be read: {bad} "):
        fetch_cats_vs_dogs(pets, subset="all", check="decode")
    dataset = fetch_cats_vs_dogs(pets, subset="all", check="decode", skip=[bad])
    assert len(dataset) == 19
    assert bad in dataset.DESCR
    with pytest.raises(ValueError, match="skip names files that are not there: 3.jpg"):
        fetch_cats_vs_dogs(pets, skip=["3.jpg"])


def test_cats_vs_dogs_of_kaggle(kaggle):
    dataset = fetch_cats_vs_dogs(kaggle, subset="all")
    assert_array_equal(dataset.targets, np.repeat([0, 1], 10))
    assert "Left out: none." in dataset.DESCR
    draw(kaggle / "train" / "1.jpg")
    with pytest.raises(
        ValueError, match="train/1.jpg is neither of a cat nor of a dog"
    ):
        fetch_cats_vs_dogs(kaggle)


def test_subsets_of_cats_vs_dogs(kaggle):
    whole = fetch_cats_vs_dogs(kaggle, subset="all").files
    parts = {
        name: fetch_cats_vs_dogs(kaggle, subset=name).files
        for name in ("train", "val", "test")
    }
    assert [len(part) for part in parts.values()] == [16, 2, 2]
    assert_array_equal(np.sort(np.concatenate(list(parts.values()))), whole)
    other = fetch_cats_vs_dogs(kaggle, random_state=1).files
    assert len(other) == 16
    assert set(other) != set(parts["train"])


def test_half_of_the_archive(pets):
    (pets / "PetImages" / "Dog").rename(pets / "Dog")
    with pytest.raises(FileNotFoundError, match="Dog was not found. Looked for"):
        fetch_cats_vs_dogs(pets)


# ---------------------------------------------------------------- BFFHQ


def write_bffhq(root, train):
    for half, pairs in (("align", [(0, 0), (1, 1)]), ("conflict", [(0, 1), (1, 0)])):
        for label, bias in pairs:
            name = f"{10 * label + bias}_{label}_{bias}.png"
            draw(root / train / half / str(label) / name)
    for folder in ("valid", "test"):
        for label, bias in ((0, 0), (0, 1), (1, 1)):
            draw(root / folder / f"77_{label}_{bias}.png")


@pytest.mark.parametrize("train", ["0.5pct", "train"])
def test_bffhq(tmp_path, train):
    write_bffhq(tmp_path, train)
    dataset = fetch_bffhq(tmp_path)
    assert_array_equal(dataset.targets, [0, 1, 0, 1])
    assert_array_equal(dataset.bias, [0, 1, 1, 0])
    assert dataset.group_names[1] == "age 0, gender 1"
    assert dataset[0][0].shape == (3, 224, 224)
    for subset in ("val", "test"):
        dataset = fetch_bffhq(tmp_path, subset=subset)
        assert_array_equal(dataset.groups, [0, 1, 3])
        assert_array_equal(dataset.take(dataset.bias != dataset.targets).groups, [1])


def test_bffhq_of_another_ratio(tmp_path):
    write_bffhq(tmp_path, "2pct")
    assert len(fetch_bffhq(tmp_path, conflict_ratio=0.02)) == 4
    with pytest.raises(
        FileNotFoundError, match=f"Looked for {tmp_path}/0.5pct, {tmp_path}/train. "
    ):
        fetch_bffhq(tmp_path)
    with pytest.raises(ValueError, match="conflict_ratio must be a number from 0 to 1"):
        fetch_bffhq(tmp_path, conflict_ratio=2)


@pytest.mark.parametrize("name", ["77.png", "77_0.png", "77_0_2.png", "77_0_x.png"])
def test_bffhq_with_another_name(tmp_path, name):
    write_bffhq(tmp_path, "train")
    draw(tmp_path / "test" / name)
    with pytest.raises(ValueError, match=f"test/{name} has another name than expected"):
        fetch_bffhq(tmp_path, subset="test")


def test_bffhq_without_conflicting_images(tmp_path):
    write_bffhq(tmp_path, "train")
    (tmp_path / "train" / "conflict").rename(tmp_path / "conflict")
    with pytest.raises(FileNotFoundError, match="conflict was not found"):
        fetch_bffhq(tmp_path)


# ---------------------------------------------------------------- BAR

ACTIONS = ["climbing", "diving", "fishing", "pole vaulting", "racing", "throwing"]


@pytest.mark.parametrize("name", ["{0}_{1}.jpg", "{0}/{1}.jpg"])
def test_bar(tmp_path, name):
    for i, action in enumerate(ACTIONS):
        draw(tmp_path / "train" / name.format(action, i))
        draw(tmp_path / "test" / name.format(action, 300 + i))
    dataset = fetch_bar(tmp_path)
    assert dataset.class_names == ACTIONS
    assert_array_equal(dataset.targets, np.arange(6))
    assert_array_equal(dataset.bias, np.arange(6))
    assert dataset.group_names[0] == "climbing, rock wall"
    assert dataset[0][0].shape == (3, 224, 224)
    test = fetch_bar(tmp_path, subset="test")
    assert_array_equal(test.targets, np.arange(6))
    assert_array_equal(test.bias, [-1] * 6)
    assert_array_equal(test.groups, [-1] * 6)
    with pytest.raises(ValueError, match="BAR as published has no validation images"):
        fetch_bar(tmp_path, subset="val")
    draw(tmp_path / "test" / "swimming_3.jpg")
    message = "test/swimming_3.jpg does not tell the action; .*give its conflict_ratio"
    with pytest.raises(ValueError, match=message):
        fetch_bar(tmp_path, subset="test")


def test_bar_with_a_conflict_ratio(tmp_path):
    for half, pairs in (
        ("train/align", [(0, 0), (5, 5)]),
        ("train/conflict/1pct", [(3, 9)]),
        ("train/conflict/5pct", [(3, 9), (2, 9)]),
        ("valid", [(1, 1)]),
        ("test", [(4, 0)]),
    ):
        for label, bias in pairs:
            draw(tmp_path / half / str(label) / f"bar_{label}_{bias % 6}.jpg")
    dataset = fetch_bar(tmp_path, conflict_ratio=0.01)
    assert_array_equal(dataset.targets, [0, 5, 3])
    assert_array_equal(dataset.bias, [0, 5, -1])
    assert dataset.class_names[5] == "action 5"
    assert len(fetch_bar(tmp_path, conflict_ratio=0.05)) == 4
    for subset, target in (("val", 1), ("test", 4)):
        dataset = fetch_bar(tmp_path, subset=subset, conflict_ratio=0.01)
        assert_array_equal(dataset.targets, [target])
        assert_array_equal(dataset.bias, [-1])
    with pytest.raises(FileNotFoundError, match="train/conflict/2pct"):
        fetch_bar(tmp_path, conflict_ratio=0.02)
    with pytest.raises(ValueError, match="conflict_ratio must be a number from 0 to 1"):
        fetch_bar(tmp_path, conflict_ratio="1pct")


# ---------------------------------------------------------------- ISIC and bone age

LESIONS = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
ISIC_TABLE = "ISIC_2019_Training_GroundTruth.csv"


@pytest.fixture
def isic(tmp_path):
    rows = [(f"ISIC_{i:07}", *(float(j == i % 8) for j in range(9))) for i in range(10)]
    write_csv(tmp_path / ISIC_TABLE, ["image", *LESIONS], rows)
    for name, *_ in rows:
        draw(tmp_path / "ISIC_2019_Training_Input" / f"{name}.jpg")
    return tmp_path


def test_isic2019(isic):
    dataset = fetch_isic2019(isic, subset="all")
    assert dataset.class_names == LESIONS
    assert_array_equal(dataset.targets, np.arange(10) % 8)
    assert_array_equal(dataset.bias, [-1] * 10)
    assert dataset.metadata["image"][3] == "ISIC_0000003"
    assert dataset[0][0].shape == (3, 224, 224)
    sizes = [
        len(fetch_isic2019(isic, subset=name)) for name in ("train", "val", "test")
    ]
    assert sizes == [8, 1, 1]


@pytest.mark.parametrize("folder", ["ISIC_2019_Training_Input/nested", "Train"])
def test_isic2019_in_other_folders(isic, folder):
    folder = folder.replace("nested", "ISIC_2019_Training_Input")
    old = (isic / "ISIC_2019_Training_Input").rename(isic / "old")
    (isic / folder).parent.mkdir(exist_ok=True)
    old.rename(isic / folder)
    assert len(fetch_isic2019(isic, subset="all")) == 10


@pytest.mark.parametrize(("column", "value"), [(2, "0.0"), (4, "1.0"), (4, "0.5")])
def test_isic2019_of_no_or_two_classes(isic, column, value):
    change_cell(isic / ISIC_TABLE, 2, column, value)
    message = "for ISIC_0000001; expected a 1 for one class and 0 for the others"
    with pytest.raises(ValueError, match=message):
        fetch_isic2019(isic)


def test_isic2019_without_a_class(isic):
    change_cell(isic / ISIC_TABLE, 0, 9, "OTHER")
    with pytest.raises(ValueError, match="has no column UNK"):
        fetch_isic2019(isic)


AGES = [1, 46, 47, 91, 92, 137, 138, 182, 183, 228]


def write_bone_age(root, table="boneage-training-dataset.csv", nested=False):
    rows = [(1377 + i, age, i % 2 == 0) for i, age in enumerate(AGES)]
    write_csv(root / table, ["id", "boneage", "male"], rows)
    folder = root / "boneage-training-dataset"
    for number, *_ in rows:
        draw((folder / folder.name if nested else folder) / f"{number}.png", mode="L")
    return root / table


@pytest.mark.parametrize("table", ["boneage-training-dataset.csv", "train.csv"])
@pytest.mark.parametrize("nested", [False, True])
def test_bone_age(tmp_path, table, nested):
    write_bone_age(tmp_path, table, nested)
    dataset = fetch_bone_age(tmp_path, subset="all")
    assert_array_equal(dataset.targets, np.repeat(np.arange(5), 2))
    assert dataset.class_names == [
        "1-46 months",
        "47-91 months",
        "92-137 months",
        "138-182 months",
        "183-228 months",
    ]
    assert_array_equal(dataset.metadata["boneage"], AGES)
    assert_array_equal(dataset.metadata["male"], [True, False] * 5)
    assert_array_equal(dataset.bias, [-1] * 10)
    assert dataset[0][0].shape == (3, 224, 224)
    # the bins are those of all ages, whichever part is read
    part = fetch_bone_age(tmp_path, subset="test")
    assert part.class_names == dataset.class_names


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (3, 1, "old", "has a boneage that is no number .*'old'"),
        (3, 1, "-4", "must have different ages in months, none negative .* -4 to 228"),
        (3, 1, "nan", "must have different ages"),
        (3, 2, "M", "has 'M' in column male, data row 3; expected True or False"),
        (0, 1, "age", "has no column boneage"),
    ],
)
def test_bone_age_with_a_damaged_table(tmp_path, row, column, value, message):
    path = write_bone_age(tmp_path)
    change_cell(path, row, column, value)
    with pytest.raises(ValueError, match=f"RSNA Bone Age: {path} {message}"):
        fetch_bone_age(tmp_path)


# ---------------------------------------------------------------- all of them


def test_random_subsets_are_those_of_rr_clarc():
    parts = {name: random_subset(25331, name, 0) for name in ("train", "val", "test")}
    # As the official code draws them, from sets of row numbers.
    rng, n = np.random.default_rng(0), 25331
    val = sorted(rng.choice(np.arange(n), int(np.round(n * 0.1)), replace=False))
    left = np.array(list(set(range(n)) - {int(i) for i in val}))
    test = sorted(rng.choice(left, int(np.round(n * 0.1)), replace=False))
    assert_array_equal(parts["val"], val)
    assert_array_equal(parts["test"], test)
    assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(n))
    digest = hashlib.sha256(parts["train"].astype("<i8").tobytes()).hexdigest()
    assert digest.startswith("33b7d8ff817d57de")


@pytest.mark.parametrize("fetch", ORIGINS)
def test_an_empty_folder(fetch, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        fetch(tmp_path)
    message = str(caught.value)
    assert f"was not found. Looked for {tmp_path}/" in message
    assert ORIGINS[fetch] in message


@pytest.mark.parametrize("fetch", ORIGINS)
def test_parameters_that_all_have(fetch, tmp_path):
    with pytest.raises(
        ValueError, match="subset must be one of 'train', .*; got 'valid'"
    ):
        fetch(tmp_path, subset="valid")


def test_check_and_transform_reach_the_dataset(kaggle, waterbirds):
    with pytest.raises(ValueError, match="check must be one of 'exists'.*; got 'some'"):
        fetch_waterbirds(waterbirds, check="some")
    dataset = fetch_waterbirds(waterbirds, transform=lambda image: image.size)
    assert dataset[0] == ((20, 16), 1)


def test_only_the_images_of_the_subset_are_read(waterbirds):
    (waterbirds / WATERBIRDS_FOLDER / WATERBIRDS[4][0]).write_bytes(b"")
    assert len(fetch_waterbirds(waterbirds, check="decode")) == 3
    with pytest.raises(ValueError, match="1 of 1 images can't be read"):
        fetch_waterbirds(waterbirds, subset="test", check="decode")


def test_a_relative_root(waterbirds, monkeypatch):
    monkeypatch.chdir(waterbirds)
    dataset = fetch_waterbirds(".")
    monkeypatch.chdir("/")
    assert isinstance(dataset[0][0], torch.Tensor)
