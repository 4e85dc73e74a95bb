"""Make selective_reference.npz, the selective metrics of torch-uncertainty.

Made with torch-uncertainty 0.13.0 (Apache-2.0 licence) and torch 2.15, on a CPU:

    pip install "torch-uncertainty[cpu]==0.13.0"
    python tests/metrics/data/make_selective_reference.py

The file holds the probabilities, the labels and the values, so that the test needs
neither torch-uncertainty nor the random numbers of one version of numpy.
"""

from pathlib import Path

import numpy as np

# Samples and classes; the labels are right more often, the larger the last number.
CASES = {
    "two samples": (2, 2, 0),
    "small": (7, 3, 1),
    "binary": (60, 2, 0),
    "accurate": (150, 4, 3),
    "no error": (20, 3, 100),
    "only errors": (20, 3, -100),
}
COVERAGES = [0.1, 0.25, 0.5, 0.8, 0.9, 1.0]
RISKS = [0.0, 0.05, 0.1, 0.3, 0.5, 1.0]


def draw(n_samples, n_classes, strength, rng):
    """Draw probabilities without ties, and labels."""
    logits = 2 * rng.normal(size=(n_samples, n_classes))
    # A label is drawn with the odds of its logit.
    noise = rng.gumbel(size=logits.shape)
    target = (strength * logits + noise).argmax(axis=1)
    proba = np.exp(logits)
    return proba / proba.sum(axis=1, keepdims=True), target


def main():
    """Draw samples, and store them with their metrics."""
    import torch
    from torch_uncertainty.metrics import classification as theirs

    rng = np.random.default_rng(4)
    arrays = {}
    for case, parameters in CASES.items():
        proba, target = draw(*parameters, rng)
        assert len(np.unique(proba.max(axis=1))) == len(proba)
        arrays[f"{case} proba"], arrays[f"{case} target"] = proba, target

        def value(metric, proba=proba, target=target):
            metric.update(torch.from_numpy(proba), torch.from_numpy(target))
            return metric.compute().item()

        arrays[f"{case} aurc"] = value(theirs.AURC())
        arrays[f"{case} augrc"] = value(theirs.AUGRC())
        arrays[f"{case} risks"] = [
            value(theirs.RiskAtxCov(cov_threshold=coverage)) for coverage in COVERAGES
        ]
        arrays[f"{case} coverages"] = [
            value(theirs.CovAtxRisk(risk_threshold=risk)) for risk in RISKS
        ]
    path = Path(__file__).with_name("selective_reference.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
