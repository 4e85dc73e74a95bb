"""Reproduction: a published setting run as its card says, beside its controls.

    python benchmarks/reproduce.py --list
    python benchmarks/reproduce.py biased-mnist-sorted
    python benchmarks/reproduce.py biased-mnist-sorted --epochs 5,20 --seeds 5

A card (`benchmarks/cards/CARD.toml`, see `card.py`) holds the data, the net, the
training, and what was published, with source and tolerance. For each seed its methods
start from the same ERM, which is trained once:

- "ERM": ordinary training;
- "ERM continued": further epochs of it, as many as the card's method adds;
- "random masks": each mask moved to a random place;
- "MaskTune", and "MaskTune, norm frozen", whose refit keeps the statistics of batch
  normalisation;
- "official recipe": MaskTune with the defaults of the official code. It looks at the
  best epoch of ERM, which is kept in training alone, so that its ERM is trained again;
- "fine-tuned": the layers that RR-ClArC corrects are trained on as it does, without a
  penalty;
- "RR-ClArC", "A-ClArC", "P-ClArC" and "RRR", which are told who shows the artifact;
- "DeNetDM", which does not start from ERM but from nothing, and "DeNetDM, shallow
  branch", its first stage alone, of the same training.

A card's parameters are those of its own estimator; methods of others have defaults,
and the same hold-out. A seed sets the weights, the hold-out, all trainings, and what is
drawn of the data.

The table, and in full `benchmarks/results/reproduce_CARD.csv`, give percentages: for
each method, test set and metric the mean and the standard deviation of the seeds, what
was published or found in a re-run, and whether ours is inside the tolerance; also what
was reduced of the published setting. Where it is known which pixels the shortcut is,
rows of "training" tell how much of it the masks hide (in 1,000 training images).
Minutes are those of all seeds; what two methods share counts for the first of them.

If something that the card needs is not here (data, weights, a GPU), it is named, and
the exit status is 2.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from card import SCALES, CardError, card_names, read_cards
from card_data import LOADERS, Source, load_sets
from card_methods import check_variants, fit, make_classifier, make_net
from comparison import compare, print_table, write_rows
from rounds import RESULTS, describe_machine, timed

from masktune_sk.metrics import group_accuracies

DATA_HOME = os.environ.get("MASKTUNE_SK_DATA", "~/.cache/masktune_sk")
MOST_GROUPS = 8  # that are listed one by one
N_LOOKED_AT = 1000  # training images, to see what the masks hide


class NotHereError(Exception):
    """What a card needs is not on this machine."""


def check_needs(card, device):
    """Refuse to start what can't be run here."""
    check_variants(card)
    lacking = []
    if card.needs.gpu and device is None and not torch.cuda.is_available():
        lacking.append("a GPU (--device cpu runs it without, for as long as it takes)")
    if card.data["name"] not in LOADERS:
        lacking.append(f"a loader of its data, {card.needs.data}")
    if lacking:
        raise NotHereError("; ".join(lacking))


def score(clf, test, coverages):
    """Return a dict of metrics on one test set, in percent."""
    y_pred = clf.predict(test.X)
    scores = {"accuracy": np.mean(y_pred == test.y)}
    if test.groups is not None:
        of_group = group_accuracies(test.y, y_pred, groups=test.groups)
        scores["worst group"] = min(of_group.values())
        scores["mean of groups"] = np.mean(list(of_group.values()))
        if len(of_group) <= MOST_GROUPS:
            scores |= {f"group {name}": value for name, value in of_group.items()}
    if test.aligned is not None and 0 < test.aligned.mean() < 1:
        kinds = np.where(test.aligned, "aligned", "conflicting")
        of_kind = group_accuracies(test.y, y_pred, groups=kinds)
        scores |= {f"{kind} accuracy": value for kind, value in of_kind.items()}
    for coverage in coverages:
        y_pred, accepted = clf.predict_with_reject(test.X, coverage=coverage / 100)
        wrong = (y_pred != test.y)[accepted]
        scores[f"error at coverage {coverage:g}"] = (
            wrong.mean() if len(wrong) else np.nan
        )
        scores[f"coverage got at {coverage:g}"] = accepted.mean()
    return {name: 100 * float(value) for name, value in scores.items()}


def score_masks(clf, train):
    """Return how much of the shortcut, and of the image, the masks hide, in percent."""
    if getattr(clf, "masking", None) != "saliency" or train.artifact_mask is None:
        return {}
    # Not the first ones: the data may be sorted, and begin with conflicting images.
    rows = np.unique(np.linspace(0, len(train.y) - 1, N_LOOKED_AT).astype(int))
    shortcut = train.artifact_mask[rows]
    _, kept = clf.mask(train.X[rows])
    scores = {"hidden of the image": 100 * (1 - kept.mean())}
    if shortcut.any():
        scores["hidden of the shortcut"] = 100 * (1 - kept[shortcut].mean())
    return scores


def run(card, arguments, memory):
    """Run all methods of a card with all seeds, and return rows of results."""
    results, minutes = {}, Counter()
    home = arguments.data_home.expanduser()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = {"home": home, "device": device, "n_workers": arguments.workers}

    def measure(method, sets, seed):
        train, tests = sets
        net = make_net(card, train, **place)
        shape = train.image_shape
        clf = make_classifier(
            card, method, net, image_shape=shape, seed=seed, memory=memory
        )
        fit(clf, train)
        scores = {
            name: score(clf, test, card.method.coverages)
            for name, test in tests.items()
        }
        return scores | {"training": score_masks(clf, train)}

    for seed in range(arguments.seeds):
        sets = load_sets(card, Source(home, arguments.download, seed))
        for method in card.method.variants:
            scores, timing = timed(measure, method, sets, seed)
            minutes[method] += timing.wall / 60
            for test, metrics in scores.items():
                for metric, value in metrics.items():
                    results.setdefault((method, test, metric), []).append(value)
            accuracies = ", ".join(
                f"{test} {metrics['accuracy']:.2f}"
                for test, metrics in scores.items()
                if "accuracy" in metrics
            )
            print(
                f"  seed {seed}, {method}: {accuracies}; {timing.wall / 60:.1f} min",
                flush=True,
            )
    return compare(card, arguments.scale, results, minutes)


def reproduce(arguments):
    """Run a card for each number of epochs and each value of its sweep."""
    cards = read_cards(
        arguments.card, scale=arguments.scale, epochs=arguments.epochs or (None,)
    )
    check_needs(cards[0], arguments.device)
    suffix = "_small" if arguments.scale == "small" else ""
    name = f"reproduce_{cards[0].name.replace('-', '_')}{suffix}.csv"
    path = arguments.out or RESULTS / name
    print(describe_machine())
    for line in (cards[0].title, cards[0].paper, cards[0].metric, *cards[0].notes):
        print(line)
    with tempfile.TemporaryDirectory() as folder:
        for card in cards:
            reduced = f"; reduced: {card.reduced}" if card.reduced else ""
            setting = f"{card.setting}, " if card.setting else ""
            print(f"\n{setting}{card.training.epochs} ERM epochs{reduced}", flush=True)
            try:
                rows = run(card, arguments, arguments.memory or folder)
            except FileNotFoundError as error:
                raise NotHereError(f"{card.needs.data}: {error}") from error
            print()
            print_table(rows)
            write_rows(path, rows)
    for line in cards[0].figures.absent:
        print(f"Not compared: {line}")
    print(f"Written to {path}.")


def list_cards():
    """Print each card, and what it needs."""
    for name in card_names():
        card = read_cards(name)[0]
        needs = [card.needs.data]
        if card.needs.gpu:
            needs.append("a GPU")
        print(f"{name:<24} {card.title}\n{'':<24} needs {', '.join(needs)}")


def positive(text):
    """Return an integer of 1 or more from an argument."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return number


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("card", nargs="?", help="name, or path of a TOML file")
    parser.add_argument("--list", action="store_true", help="list the cards, and end")
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="full",
        help="small: to see that it runs; its numbers mean nothing",
    )
    parser.add_argument(
        "--seeds", type=positive, default=3, help="how many; default: 3"
    )
    parser.add_argument(
        "--epochs",
        type=lambda text: [positive(number) for number in text.split(",")],
        help="of ERM, in place of the card's; several, as in 5,20, are run in turn",
    )
    parser.add_argument("--data-home", type=Path, default=Path(DATA_HOME))
    parser.add_argument("--download", action="store_true", help="data that are lacking")
    parser.add_argument("--out", type=Path, help="the CSV file")
    parser.add_argument("--memory", type=Path, help="folder to keep trained nets in")
    parser.add_argument("--device", help="of torch; default: a GPU if there is one")
    parser.add_argument("--workers", type=int, default=0, help="that read photographs")
    parser.add_argument("--threads", type=int, help="torch threads; default: its own")
    arguments = parser.parse_args(argv)
    if arguments.list:
        return list_cards()
    if arguments.card is None:
        parser.error("name a card, or --list them")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    try:
        return reproduce(arguments)
    except CardError as error:
        parser.error(str(error))
    except NotHereError as error:
        print(f"{arguments.card} can't be run here. Needed: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
