"""How a run learnt, which images it found hard, what it confuses, and contact sheets."""

from collections.abc import Mapping, Sequence
from itertools import product
from textwrap import fill
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from realfake_hf.figures.style import (
    BLUE,
    COLORS,
    INK,
    LABEL_HEIGHT,
    VERMILLION,
    WIDTH,
    Floats,
    percent_range,
    push_apart,
    style_axes,
    unit_interval,
)
from realfake_hf.labels import LABEL_NAMES

LINE_LOOKS: Final = tuple(product(("-", "--", ":", "-."), COLORS))  # 28; neighbours differ in colour
LOSS_LOOKS: Final = {"train_loss": ("training", "--", INK), "eval_loss": ("validation", "-", BLUE)}
MOST_MARKERS: Final = 30  # epochs; beyond them a dot for each hides the line
LARGEST_NEAREST: Final = 128  # pixels; larger images are shrunk, where nearest would alias
Image = NDArray[np.uint8]
Row = Mapping[str, float]


def learning_curves(history: Sequence[Row], *, best_epoch: int | None = None) -> Figure:
    """Draw the losses of a run and, where there is one, its validation accuracy with the best epoch marked.

    Args:
        history: one row an epoch: `epoch`, any of `train_loss`, `eval_loss` (nats), and perhaps `eval_accuracy`,
            `eval_roc_auc` [0, 1]. What a row lacks is not drawn.
        best_epoch: the epoch that was kept; None means the first of those with the highest `eval_accuracy`.
    """
    evaluated = [row for row in history if "eval_accuracy" in row]
    by_epoch = {row["epoch"]: row for row in history if "epoch" in row}
    has_loss = any(LOSS_LOOKS.keys() & row.keys() for row in history)
    if not has_loss or len(by_epoch) < len(history) or best_epoch not in {None, *by_epoch}:
        raise ValueError(
            "wanted rows with an 'epoch' of their own, a train_loss or eval_loss in one or more, and best_epoch among "
            f"them; found {len(history)} rows with {sorted({key for row in history for key in row})}, epochs "
            f"{list(by_epoch)}, best_epoch {best_epoch}. Pass one mapping an epoch, and an epoch of theirs or None."
        )
    first_highest = max(evaluated, key=lambda row: row["eval_accuracy"], default={})
    best = first_highest if best_epoch is None else by_epoch[best_epoch]
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    panels = figure.subplots(1, 1 + bool(evaluated), squeeze=False)[0]
    for axes in panels:
        _style_epochs(axes, list(by_epoch), room=0.5)
        if best:
            axes.axvline(best["epoch"], color=INK, linewidth=0.8, linestyle=":")
    _draw_losses(panels[0], history)
    if evaluated:
        _draw_accuracy(panels[1], evaluated, best)
    return figure


def content_accuracy(accuracy: Mapping[str, Sequence[float]], *, epochs: Sequence[int] | None = None) -> Figure:
    """Draw the validation accuracy of every content class over the epochs, each line named at its end.

    Args:
        accuracy: content class -> accuracies [0, 1], one an epoch. A single epoch gives dots, sorted, and no lines.
        epochs: their numbers; None means 1, 2, 3, ...
    """
    lengths = {name: len(values) for name, values in accuracy.items()}
    numbers = range(1, max(lengths.values(), default=0) + 1) if epochs is None else epochs
    if not len(numbers) or set(lengths.values()) != {len(numbers)}:
        raise ValueError(
            "wanted one or more content classes, each with one accuracy for every epoch; found "
            f"{len(numbers)} epochs and {lengths} accuracies. Give every class one an epoch."
        )
    percent = 100 * unit_interval(list(accuracy.values()))
    if len(numbers) == 1:
        return _accuracy_dots(list(accuracy), percent[:, 0])
    return _accuracy_lines(list(accuracy), percent, numbers)


def confusion_matrix(counts: NDArray[np.integer], *, title: str = "") -> Figure:
    """Draw a confusion matrix: each cell's count and its share of the row, which is also its colour.

    Args:
        counts: (2, 2) images; rows truly REAL, FAKE, columns called REAL, FAKE.
        title: what was counted; the number of images is appended.
    """
    if counts.shape != (2, 2) or counts.min() < 0 or not counts.any():
        raise ValueError(
            f"wanted (2, 2) counts, none negative and not all 0; found {counts.shape}, {counts.tolist()}. "
            "Pass rows truly REAL, FAKE and columns called REAL, FAKE."
        )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full((2, 2), np.nan), where=totals > 0)
    figure = Figure(figsize=(5.0, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")  # an empty row stays white
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]:,}\n" + ("no images" if np.isnan(share) else f"{100 * share:.2f} %")
        color = "white" if share > 0.5 else "black"  # noqa: PLR2004  the grey middle of the colour map
        axes.text(column, row, text, ha="center", va="center", color=color, size=14)
    axes.set_xticks(range(2), [f"called {name}" for name in LABEL_NAMES])
    axes.set_yticks(range(2), [f"truly {name}\nn = {n:,}" for name, n in zip(LABEL_NAMES, totals.flat, strict=True)])
    axes.tick_params(length=0, labelsize=11)
    axes.set(frame_on=False, title=f"{title}, n = {counts.sum():,}".removeprefix(", "))
    return figure


def difficulty_map(p_true: NDArray[np.floating], *, is_fake: NDArray[np.bool_]) -> Figure:
    """Draw the data map of Swayamdipta et al. (2020), *Dataset Cartography*, EMNLP: which images are hard, and how.

    An image's confidence is the mean over epochs of the probability given to its true label, its variability the
    population standard deviation. After one epoch every variability is 0; only the confidences are drawn then.

    Args:
        p_true: (epochs, n) validation probabilities of the true label after each epoch, [0, 1].
        is_fake: (n,) the true labels.
    """
    if p_true.ndim != 2 or not p_true.size or is_fake.shape != p_true.shape[1:]:  # noqa: PLR2004
        raise ValueError(
            "wanted p_true of shape (epochs, n) and is_fake of shape (n,), neither empty; found "
            f"{p_true.shape} and {is_fake.shape}. Stack one row an epoch, the images in the same order."
        )
    p_true = unit_interval(p_true)
    if len(p_true) > 1:
        return _data_map(p_true, is_fake)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    _draw_histogram(axes, p_true[0], is_fake, top=1)
    axes.set_title(f"n = {is_fake.size:,} validation images, 1 epoch: every variability is 0")
    axes.set_xlabel("confidence: probability of the true label")
    axes.legend(frameon=False, loc="upper left", reverse=True)
    return figure


def image_grid(images: Sequence[Image], *, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Lay images out as a contact sheet, row by row, each with its title below.

    Args:
        images: uint8 [0, 255], each (height, width, 3), of any sizes. Small ones are enlarged with sharp pixels.
        titles: one an image; long ones are wrapped.
        columns: the most images in a row.
    """
    wrong = {f"{image.dtype} {image.shape}" for image in images if image.dtype != np.uint8 or image.shape[2:] != (3,)}
    texts = [""] * len(images) if titles is None else list(titles)
    if not images or wrong or len(texts) != len(images) or columns < 1:
        raise ValueError(
            f"wanted uint8 (h, w, 3) images, as many titles, 1 column or more; found {len(images)} images, of them "
            f"wrong {sorted(wrong)}, {len(texts)} titles, {columns} columns. Use np.asarray(image.convert('RGB'))."
        )
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    cell = min(WIDTH / columns, 2.0)  # inches
    texts = [fill(text, max(6, int(14 * cell))) for text in texts]
    caption = 0.06 + 0.17 * max(text.count("\n") + bool(text) for text in texts)  # inches
    height = caption + cell * max(image.shape[0] / image.shape[1] for image in images)
    figure = Figure(figsize=(cell * columns, height * rows), layout="constrained")
    for position, (image, text) in enumerate(zip(images, texts, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, position, anchor="S", xticks=[], yticks=[], frame_on=False)
        axes.imshow(image, interpolation="nearest" if max(image.shape) <= LARGEST_NEAREST else "auto")
        axes.set_xlabel(text, fontsize=8.5, labelpad=2, parse_math=False)
    return figure


def _style_epochs(axes: Axes, epochs: Sequence[float], *, room: float) -> None:
    style_axes(axes)
    axes.set(xlabel="epoch", xlim=(min(epochs) - room, max(epochs) + room))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_prop_cycle(marker=["." if len(epochs) <= MOST_MARKERS else "None"])


def _draw_losses(axes: Axes, history: Sequence[Row]) -> None:
    for key, (label, style, color) in LOSS_LOOKS.items():
        points = [(row["epoch"], row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), linestyle=style, color=color, label=label)
    axes.set_ylabel("loss, nats")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)


def _draw_accuracy(axes: Axes, rows: Sequence[Row], best: Row) -> None:
    percent = 100 * unit_interval([row["eval_accuracy"] for row in rows])
    axes.plot([row["epoch"] for row in rows], percent, color=BLUE, clip_on=False)
    axes.set(ylim=percent_range(percent), ylabel="validation accuracy, %")
    if "eval_accuracy" in best:
        value = 100 * best["eval_accuracy"]
        auc = f", ROC AUC {best['eval_roc_auc']:.4f}" if "eval_roc_auc" in best else ""
        label = f"best: epoch {best['epoch']:g}, {value:.2f} %{auc}"
        axes.plot([best["epoch"]], [value], "o", color=VERMILLION, markersize=8, clip_on=False, label=label)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, handletextpad=0.2)


def _accuracy_dots(names: Sequence[str], percent: Floats) -> Figure:
    order = np.argsort(percent, kind="stable")
    figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    axes.plot(percent[order], range(len(names)), "o", color=BLUE, markersize=7, clip_on=False)
    labels = [f"{names[index]} {percent[index]:.1f}" for index in order]
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.set(xlim=percent_range(percent), ylim=(-0.6, len(names) - 0.4), xlabel="validation accuracy, %")
    return figure


def _accuracy_lines(names: Sequence[str], percent: Floats, epochs: Sequence[int]) -> Figure:
    height = max(4.2, 1.0 + 0.24 * len(names))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    _style_epochs(axes, epochs, room=0)
    low, high = percent_range(percent)
    axes.set(ylim=(low, high), ylabel="validation accuracy, %")
    order = np.argsort(percent[:, -1], kind="stable")
    places = push_apart((percent[order, -1] - low) / (high - low), gap=LABEL_HEIGHT / (height - 0.7))
    for index, place in zip(order, places, strict=True):
        style, color = LINE_LOOKS[index % len(LINE_LOOKS)]
        end = percent[index, -1]
        axes.plot(epochs, percent[index], linestyle=style, color=color, label=names[index], clip_on=False)
        axes.annotate(
            f"{names[index]} {end:.1f}", (epochs[-1], end), (1.06, place), textcoords="axes fraction", va="center",
            arrowprops={"arrowstyle": "-", "color": color, "shrinkB": 0, "relpos": (0, 0.5)}, parse_math=False,
        )  # fmt: skip
    return figure


def _draw_histogram(axes: Axes, values: Floats, is_fake: NDArray[np.bool_], *, top: float, along: str = "x") -> None:
    style_axes(axes)
    groups = [values[~is_fake], values[is_fake]]
    labels = [f"{name}, n = {len(group):,}" for name, group in zip(LABEL_NAMES, groups, strict=True)]
    heights, *_ = axes.hist(
        groups, bins=40, range=(0, top), histtype="step", log=True, linewidth=1.4, color=[BLUE, VERMILLION],
        orientation="vertical" if along == "x" else "horizontal", label=labels,
    )  # fmt: skip
    up = "y" if along == "x" else "x"
    counts = (0.7, max(12, 2 * np.max(heights)))  # more than a decade, or the minor ticks get labels
    axes.set(**{f"{along}lim": (-0.02 * top, 1.02 * top), f"{up}lim": counts, f"{up}label": "images"})


def _data_map(p_true: Floats, is_fake: NDArray[np.bool_]) -> Figure:
    confidence, variability = p_true.mean(axis=0), np.minimum(p_true.std(axis=0), 0.5)  # rounding may pass the bound
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    (above, corner), (axes, beside) = figure.subplots(
        2, 2, sharex="col", sharey="row", width_ratios=(5, 1), height_ratios=(1, 4)
    )
    corner.set_axis_off()
    _draw_histogram(above, variability, is_fake, top=0.5)
    _draw_histogram(beside, confidence, is_fake, top=1, along="y")
    style_axes(axes)
    order = np.argsort(variability, kind="stable")  # mixes the labels, or the last one drawn would cover the other
    colors = np.where(is_fake, VERMILLION, BLUE)[order].tolist()
    size = float(np.clip(45_000 / len(order), 9, 36))  # points squared
    axes.scatter(variability[order], confidence[order], c=colors, s=size, alpha=0.4, linewidths=0, rasterized=True)
    # The words stand outside or at the tip of variability**2 <= confidence * (1 - confidence), where all points lie.
    for word, x, y in (("easy to learn", 0.2, 0.97), ("hard to learn", 0.2, 0.03), ("ambiguous", 0.42, 0.5)):
        axes.text(x, y, word, va="center", style="italic", color=INK, size=12)
    axes.set(xlabel="variability: standard deviation over epochs", ylabel="confidence: mean probability of true label")
    above.set_title(f"n = {len(is_fake):,} validation images, {len(p_true)} epochs")
    figure.legend(*above.get_legend_handles_labels(), loc="upper right", frameon=False, reverse=True)
    return figure
