"""Local copies of published sets: finding their files, and reading their tables."""

import csv
import os
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from .folder import BiasedImageDataset


class LocalCopy:
    """A folder with a published set, and how to speak of it in errors.

    Parameters
    ----------
    name : str
        What the set is called.
    root : str or path-like
        The folder.
    origin : str
        A sentence that says where the data come from.
    """

    def __init__(self, name, root, origin):
        self.name = name
        self.root = Path(os.path.abspath(os.path.expanduser(root)))
        self.origin = origin

    def find(self, *candidates):
        """Return the first of some paths below the folder that exists.

        Raises
        ------
        FileNotFoundError
            If none does.
        """
        for candidate in candidates:
            if (self.root / candidate).exists():
                return self.root / candidate
        looked = ", ".join(str(self.root / candidate) for candidate in candidates)
        raise FileNotFoundError(
            f"{self.name}: {Path(candidates[0]).name} was not found. Looked for "
            f"{looked}. {self.origin}"
        )

    def damaged(self, path, problem):
        """Return the error about a file that is not as it should be."""
        return ValueError(f"{self.name}: {path} {problem}. {self.origin}")

    def read_csv(self, path, columns):
        """Read a table with a header.

        Parameters
        ----------
        path : Path
            The file.
        columns : sequence of str
            Those that it must have.

        Returns
        -------
        table : dict of str to ndarray of str, shape (n_rows,)
            All columns.

        Raises
        ------
        ValueError
            If it is no such table.
        """
        try:
            # The mark that spreadsheets put first would become part of a name.
            with open(path, newline="", encoding="utf-8-sig") as file:
                rows = [row for row in csv.reader(file) if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise self.damaged(path, f"is no table of text ({error})") from error
        if not rows:
            raise self.damaged(path, "is empty")
        return self.table(path, rows[0], rows[1:], columns)

    def table(self, path, header, rows, columns):
        """Make columns of rows that have been read; see `read_csv`."""
        missing = [column for column in columns if column not in header]
        if missing:
            raise self.damaged(
                path,
                f"has no column {', '.join(missing)}; its columns are "
                f"{', '.join(header)}",
            )
        if not rows:
            raise self.damaged(path, "has a header and no rows")
        for i, row in enumerate(rows):
            if len(row) != len(header):
                raise self.damaged(
                    path,
                    f"has {len(row)} values in data row {i + 1}, and {len(header)} "
                    "columns; it may have been cut short",
                )
        return {
            name: np.array(column)
            for name, column in zip(header, zip(*rows, strict=True), strict=True)
        }

    def integers(self, path, table, column, n_values):
        """Return a column as integers from 0 to `n_values - 1`.

        Raises
        ------
        ValueError
            If one is not, with its row.
        """
        allowed = {str(value): value for value in range(n_values)}
        for i, value in enumerate(table[column].tolist()):
            if value not in allowed:
                raise self.damaged(
                    path,
                    f"has {value!r} in column {column}, data row {i + 1}; expected an "
                    f"integer from 0 to {n_values - 1}",
                )
        return table[column].astype(np.int64)

    def images(self, folder):
        """List the images in a folder and in all below it, by name.

        Returns
        -------
        files : list of str
            Relative to the root, sorted.

        Raises
        ------
        ValueError
            If there are none.
        """
        files = []
        for place, _, names in os.walk(folder, followlinks=True):
            place = os.path.relpath(place, self.root)
            files += [
                os.path.join(place, name)
                for name in names
                # Those that begin with a dot are the system's.
                if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
            ]
        if not files:
            raise self.damaged(folder, "holds no images")
        return sorted(files)

    def numbers_in_names(self, files, n_values):
        """Return the last two numbers of each name, as in ``portrait_0_1.png``.

        Parameters
        ----------
        files : list of str
            The files.
        n_values : int
            How many values each number has, from 0.

        Returns
        -------
        numbers : ndarray of shape (n_files, 2), dtype int64
            The numbers.

        Raises
        ------
        ValueError
            If a name has no such end.
        """
        allowed = {str(value): value for value in range(n_values)}
        numbers = []
        for file in files:
            parts = Path(file).stem.split("_")[-2:]
            if len(parts) < 2 or not allowed.keys() >= set(parts):
                raise self.damaged(
                    file,
                    "has another name than expected: something, the class, and the "
                    f"bias, as in x_0_1.png, both from 0 to {n_values - 1}",
                )
            numbers.append([allowed[part] for part in parts])
        return np.array(numbers, dtype=np.int64)

    def dataset(self, files, targets, bias=None, *, rows=None, check, **fields):
        """Make the dataset of all files, or of some rows.

        All files are looked for, so that those of the test set are not found missing
        when a net has been trained; only those that are asked for are read.
        """
        dataset = BiasedImageDataset(
            files,
            targets,
            bias,
            root=self.root,
            origin=self.origin,
            check="exists" if check == "decode" else check,
            **fields,
        )
        if rows is not None:
            if len(rows) == 0:
                raise ValueError(
                    f"{self.name}: none of the {len(dataset)} images in {self.root} is "
                    f"in this subset. {self.origin}"
                )
            dataset = dataset.take(rows)
        if check == "decode":
            dataset.check_images()
        return dataset


def random_subset(n_samples, subset, random_state):
    """Draw 80 % for training, and 10 % each for validation and test.

    Parameters
    ----------
    n_samples : int
        Samples in all.
    subset : {"train", "val", "test", "all"}
        Which part.
    random_state : int or None
        Seed of `numpy.random.default_rng`.

    Returns
    -------
    rows : ndarray of int
        Sorted.
    """
    rng = np.random.default_rng(random_state)
    rows = np.arange(n_samples)
    n_drawn = round(n_samples * 0.1)
    val = np.sort(rng.choice(rows, n_drawn, replace=False))
    rest = np.setdiff1d(rows, val)
    test = np.sort(rng.choice(rest, n_drawn, replace=False))
    parts = {"val": val, "test": test, "all": rows, "train": np.setdiff1d(rest, test)}
    return parts[subset]
