"""MNIST, Fashion-MNIST, CIFAR-10 and SVHN, from local copies or downloaded."""

from .._checks import check_option
from .array_copies import Cifar10Copy, IdxCopy, SvhnCopy, folder_of_copies

_DIGITS = tuple("0123456789")
_MNIST = IdxCopy(
    name="MNIST",
    page="http://yann.lecun.com/exdb/mnist/",
    npz="mnist.npz",
    classes=_DIGITS,
    shape=(28, 28),
)
_FASHION_MNIST = IdxCopy(
    name="FashionMNIST",
    page="https://github.com/zalandoresearch/fashion-mnist",
    npz="fashion_mnist.npz",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    shape=(28, 28),
)
_CIFAR10 = Cifar10Copy(
    name="CIFAR10",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    npz="cifar10.npz",
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    shape=(3, 32, 32),
)
_SVHN = SvhnCopy(
    name="SVHN",
    page="http://ufldl.stanford.edu/housenumbers/",
    npz="svhn.npz",
    classes=_DIGITS,
    shape=(3, 32, 32),
)


def fetch_mnist(*, subset="train", data_home=None, download=False, return_X_y=False):
    """Read a local copy of MNIST, or download it.

    Handwritten digits, 60,000 for training and 10,000 for the test [1]_.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The published split.

    data_home : str or path-like, default=None
        Folder with the IDX files in ``MNIST/raw`` or ``MNIST``, as they are or as
        ``.gz``, or with ``mnist.npz``. None: that of the environment variable
        ``MASKTUNE_SK_DATA``, else ``~/.cache/masktune_sk``.

    download : bool, default=False
        Whether to download the files through torchvision if there is no copy.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    mnist : :class:`~sklearn.utils.Bunch`
        Dictionary-like object:

        data : ndarray of shape (n_samples, 28, 28), dtype uint8
            Grey images, values from 0 to 255.
        target : ndarray of shape (n_samples,), dtype int64
            The digit, 0 to 9.
        target_names : list of str
            What each class is.
        DESCR : str
            What was read.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    FileNotFoundError
        If there is no copy, and `download` is False.
    OSError
        If the download fails.
    ValueError
        If a file is damaged, or `subset` is none of the values above.

    Notes
    -----
    The arrays of an ``.npz`` file are ``train_images``, ``train_labels``,
    ``test_images`` and ``test_labels``, or ``x_train``, ``y_train``, ``x_test`` and
    ``y_test``.

    References
    ----------
    .. [1] LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
       Proceedings of the IEEE 1998.
    """
    return _fetch(_MNIST, subset, data_home, download, return_X_y)


def fetch_fashion_mnist(
    *, subset="train", data_home=None, download=False, return_X_y=False
):
    """Read a local copy of Fashion-MNIST, or download it.

    Photographs of clothes laid out like MNIST, 60,000 for training and 10,000 for the
    test [1]_.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The published split.

    data_home : str or path-like, default=None
        Folder with the IDX files in ``FashionMNIST/raw`` or ``FashionMNIST``, as they
        are or as ``.gz``, or with ``fashion_mnist.npz``. None: that of the environment
        variable ``MASKTUNE_SK_DATA``, else ``~/.cache/masktune_sk``.

    download : bool, default=False
        Whether to download the files through torchvision if there is no copy.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    fashion : :class:`~sklearn.utils.Bunch`
        Dictionary-like object:

        data : ndarray of shape (n_samples, 28, 28), dtype uint8
            Grey images, values from 0 to 255.
        target : ndarray of shape (n_samples,), dtype int64
            The class, 0 to 9.
        target_names : list of str
            What each class is, "T-shirt/top" to "Ankle boot".
        DESCR : str
            What was read.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    FileNotFoundError
        If there is no copy, and `download` is False.
    OSError
        If the download fails.
    ValueError
        If a file is damaged, or `subset` is none of the values above.

    See Also
    --------
    fetch_mnist : The digits; it tells the arrays of an ``.npz`` file.

    References
    ----------
    .. [1] Xiao et al., "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
       Learning Algorithms", 2017.
    """
    return _fetch(_FASHION_MNIST, subset, data_home, download, return_X_y)


def fetch_cifar10(*, subset="train", data_home=None, download=False, return_X_y=False):
    """Read a local copy of CIFAR-10, or download it.

    Photographs of ten classes, 50,000 for training and 10,000 for the test [1]_.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The published split.

    data_home : str or path-like, default=None
        Folder with ``cifar-10-batches-py``, which must have the published checksums,
        or with ``cifar10.npz``, channel first or last. None: that of the environment
        variable ``MASKTUNE_SK_DATA``, else ``~/.cache/masktune_sk``.

    download : bool, default=False
        Whether to download the files through torchvision if there is no copy.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    cifar10 : :class:`~sklearn.utils.Bunch`
        Dictionary-like object:

        data : ndarray of shape (n_samples, 3, 32, 32), dtype uint8
            RGB images, channel first, values from 0 to 255.
        target : ndarray of shape (n_samples,), dtype int64
            The class, 0 to 9.
        target_names : list of str
            What each class is, "airplane" to "truck".
        DESCR : str
            What was read.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    FileNotFoundError
        If there is no copy, and `download` is False.
    OSError
        If the download fails.
    ValueError
        If a file is damaged, or `subset` is none of the values above.

    See Also
    --------
    fetch_mnist : It tells the arrays of an ``.npz`` file.

    References
    ----------
    .. [1] Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    return _fetch(_CIFAR10, subset, data_home, download, return_X_y)


def fetch_svhn(*, subset="train", data_home=None, download=False, return_X_y=False):
    """Read a local copy of SVHN, or download it.

    Photographs of house numbers cut into digits, 73,257 for training and 26,032 for the
    test [1]_.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        The published split, without the extra training images.

    data_home : str or path-like, default=None
        Folder with ``train_32x32.mat`` and ``test_32x32.mat``, also in ``SVHN``, which
        must have the published checksums, or with ``svhn.npz``, channel first or last.
        None: that of the environment variable ``MASKTUNE_SK_DATA``, else
        ``~/.cache/masktune_sk``.

    download : bool, default=False
        Whether to download the files through torchvision if there is no copy.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    svhn : :class:`~sklearn.utils.Bunch`
        Dictionary-like object:

        data : ndarray of shape (n_samples, 3, 32, 32), dtype uint8
            RGB images, channel first, values from 0 to 255.
        target : ndarray of shape (n_samples,), dtype int64
            The digit, 0 to 9: the files call 0 a 10.
        target_names : list of str
            What each class is.
        DESCR : str
            What was read.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    FileNotFoundError
        If there is no copy, and `download` is False.
    OSError
        If the download fails.
    ValueError
        If a file is damaged, or `subset` is none of the values above.

    See Also
    --------
    fetch_mnist : It tells the arrays of an ``.npz`` file.

    References
    ----------
    .. [1] Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature
       Learning", 2011.
    """
    return _fetch(_SVHN, subset, data_home, download, return_X_y)


def _fetch(copies, subset, data_home, download, return_X_y):
    check_option(subset, ("train", "test"), name="subset")
    bunch = copies.fetch(subset, folder_of_copies(data_home), download)
    return (bunch.data, bunch.target) if return_X_y else bunch
