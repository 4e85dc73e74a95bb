"""Make gradcam_reference.npz, the maps of the public grad-cam package.

Made with grad-cam 1.5.7 (MIT licence), torch 2.15 and opencv 5.0, on a CPU:

    pip install grad-cam==1.5.7
    python tests/saliency/data/make_gradcam_reference.py

The file holds the pixels, the weights, the classes and the maps, so that the test needs
neither grad-cam nor the random numbers of one version of torch.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

HEIGHT, WIDTH = 16, 24
N_SAMPLES, N_CLASSES = 4, 3
TARGET_LAYER = "body.6"
# Their classes by our names.
METHODS = {
    "gradcam": "GradCAM",
    "xgradcam": "XGradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
}


def make_module():
    """Build the net, in eval mode; its target layer has 8 x 12 positions."""
    module = nn.Sequential()
    module.body = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
    )
    module.head = nn.Sequential(
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * (HEIGHT // 4) * (WIDTH // 4), 8),
        nn.ReLU(),
        nn.Linear(8, N_CLASSES),
    )
    return module.eval()


def main():
    """Draw a net and images, and store them with their maps."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(8)
    module = make_module()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.1, 1)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    size = (N_SAMPLES, 3, HEIGHT, WIDTH)
    pixels = torch.randint(256, size, dtype=torch.uint8)
    X = pixels.float() / 255
    with torch.no_grad():
        # Centre the scores, so that not all predictions are the same.
        module.head[-1].bias -= module(X).mean(dim=0)
    given = np.arange(N_SAMPLES) % N_CLASSES
    arrays = {
        "pixels": pixels.numpy(),
        "given": given,
        "predicted": module(X).argmax(dim=1).numpy(),
    }
    for name, value in module.state_dict().items():
        arrays[f"weights {name}"] = value.numpy()
    layer = module.get_submodule(TARGET_LAYER)
    for method, class_name in METHODS.items():
        with getattr(pytorch_grad_cam, class_name)(module, [layer]) as cam:
            arrays[f"maps {method} predicted"] = cam(X, targets=None)
            targets = [ClassifierOutputTarget(label) for label in given]
            arrays[f"maps {method} given"] = cam(X, targets=targets)
    path = Path(__file__).with_name("gradcam_reference.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
