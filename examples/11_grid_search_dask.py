"""A search over thresholds on a Dask cluster: ERM is trained once a fold.

Here the cluster is two processes of this machine. On a real one give the address of its
scheduler to `Client`, and as `memory` a folder that all its machines share.

    python examples/11_grid_search_dask.py

The scores are accuracies on rows with the same shortcut, and so prefer the thresholds
that hide least of it: choose by rows without the shortcut, or by groups, if you can.
"""

import tempfile

from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.modules import default_net


def load_samples(n_samples):
    X, y = load_shortcut_digits(return_X_y=True)
    return X[:n_samples], y[:n_samples]


def make_search(memory, epochs):
    """Return an unfitted search over eight thresholds."""
    net = default_net((3, 28, 28), n_classes=2, max_epochs=epochs)
    return GridSearchCV(
        MaskTuneClassifier(net, memory=memory, random_state=0),
        {"mask_threshold": [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75]},
        cv=StratifiedKFold(3),
    )


def search_on_cluster(search, X, y):
    """Fit a search on a cluster of two processes."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Client(cluster),
        parallel_config("dask"),
    ):
        return search.fit(X, y)


def print_scores(search):
    results = search.cv_results_
    for params, score in zip(
        results["params"], results["mean_test_score"], strict=True
    ):
        print(f"mask_threshold={params['mask_threshold']:.2f}: accuracy {score:.3f}")


# Dask starts its processes by importing this file again.
if __name__ == "__main__":
    X, y = load_samples(600)
    with tempfile.TemporaryDirectory() as memory:
        print_scores(search_on_cluster(make_search(memory, epochs=5), X, y))
