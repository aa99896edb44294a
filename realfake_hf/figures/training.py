"""Figures of a training run: learning curves, accuracy by content, confusion matrix and data map."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from realfake_hf.figures import style
from realfake_hf.labels import LABEL_NAMES

LINE_STYLES: Final = tuple(product(("-", "--", ":", "-."), style.COLORS))  # 28; successive ones differ in colour
LOSS_STYLES: Final = {"train_loss": ("training", "--", style.INK), "eval_loss": ("validation", "-", style.BLUE)}
MAX_MARKERS: Final = 30  # epochs; more markers would hide the line
LABEL_HEIGHT: Final = 0.18  # inches between labels at the ends of lines
Row = Mapping[str, float]


def learning_curves(history: Sequence[Row], *, best_epoch: int | None = None) -> Figure:
    """Draw the losses of a run and, if known, its validation accuracy, with the best epoch marked.

    Args:
        history: one row per epoch with `epoch` and any of `train_loss`, `eval_loss` (nats), `eval_accuracy` and
            `eval_roc_auc` ([0, 1]). Missing values are not drawn.
        best_epoch: epoch of the saved checkpoint; None means the first epoch with the highest `eval_accuracy`.
    """
    evaluated = [row for row in history if "eval_accuracy" in row]
    by_epoch = {row["epoch"]: row for row in history if "epoch" in row}
    has_loss = any(LOSS_STYLES.keys() & row.keys() for row in history)
    if not has_loss or len(by_epoch) < len(history) or best_epoch not in {None, *by_epoch}:
        raise ValueError(
            "expected rows with distinct epochs, a train_loss or eval_loss in at least one, and best_epoch among the "
            f"epochs; found {len(history)} rows with {sorted({key for row in history for key in row})}, epochs "
            f"{list(by_epoch)}, best_epoch {best_epoch}."
        )
    first_highest = max(evaluated, key=lambda row: row["eval_accuracy"], default={})
    best = first_highest if best_epoch is None else by_epoch[best_epoch]
    figure = Figure(figsize=(style.WIDTH, 3.5), layout="constrained")
    panels = figure.subplots(1, 1 + bool(evaluated), squeeze=False)[0]
    for axes in panels:
        _style_epochs(axes, list(by_epoch), room=0.5)
        if best:
            axes.axvline(best["epoch"], color=style.INK, linewidth=0.8, linestyle=":")
    _draw_losses(panels[0], history)
    if evaluated:
        _draw_accuracy(panels[1], evaluated, best)
    return figure


def content_accuracy(accuracy: Mapping[str, Sequence[float]], *, epochs: Sequence[int] | None = None) -> Figure:
    """Draw the validation accuracy of each content class over the epochs, each line labelled at its end.

    Args:
        accuracy: one accuracy in [0, 1] per epoch, by content class. A single epoch is drawn as sorted dots.
        epochs: numbers of the epochs; None means 1, 2, 3, ...
    """
    lengths = {name: len(values) for name, values in accuracy.items()}
    numbers = range(1, max(lengths.values(), default=0) + 1) if epochs is None else epochs
    if not len(numbers) or set(lengths.values()) != {len(numbers)}:
        raise ValueError(
            f"expected content classes with one accuracy per epoch; found {len(numbers)} epochs and {lengths} values."
        )
    percent = 100 * style.unit_interval(list(accuracy.values()))
    if len(numbers) == 1:
        return _accuracy_dots(list(accuracy), percent[:, 0])
    return _accuracy_lines(list(accuracy), percent, numbers)


def confusion_matrix(counts: NDArray[np.integer], *, title: str = "") -> Figure:
    """Draw a confusion matrix: each cell shows its count and its share of the row, which is also its colour.

    Args:
        counts: (2, 2) images; rows are the true labels REAL and FAKE, columns the predictions.
        title: name of the images; their number is appended.
    """
    if counts.shape != (2, 2) or counts.min() < 0 or not counts.any():
        raise ValueError(f"expected (2, 2) counts, some above 0; found {counts.shape}, {counts.tolist()}.")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full((2, 2), np.nan), where=totals > 0)
    figure = Figure(figsize=(5.0, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")  # an empty row stays white
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]:,}\n" + ("no images" if np.isnan(share) else f"{100 * share:.2f}%")
        color = "white" if share > 0.5 else "black"  # noqa: PLR2004 - the grey middle of the colour map
        axes.text(column, row, text, ha="center", va="center", color=color, size=14)
    axes.set_xticks(range(2), [f"called {name}" for name in LABEL_NAMES])
    axes.set_yticks(range(2), [f"truly {name}\nn = {n:,}" for name, n in zip(LABEL_NAMES, totals.flat, strict=True)])
    axes.tick_params(length=0, labelsize=11)
    axes.set(frame_on=False, title=f"{title}, n = {counts.sum():,}".removeprefix(", "))
    return figure


def difficulty_map(p_true: NDArray[np.floating], *, is_fake: NDArray[np.bool_]) -> Figure:
    """Draw the data map of Swayamdipta et al. (2020), *Dataset Cartography*, EMNLP.

    The confidence of an image is the mean over epochs of the probability of its true label; its variability is the
    population standard deviation. After one epoch all variabilities are 0, and only the confidences are drawn.

    Args:
        p_true: (epochs, n) validation probabilities of the true label after each epoch, in [0, 1].
        is_fake: (n,) true labels.
    """
    if p_true.ndim != 2 or not p_true.size or is_fake.shape != p_true.shape[1:]:  # noqa: PLR2004
        raise ValueError(
            "expected p_true of shape (epochs, n) and is_fake of shape (n,), neither empty; found "
            f"{p_true.shape} and {is_fake.shape}."
        )
    p_true = style.unit_interval(p_true)
    if len(p_true) > 1:
        return _data_map(p_true, is_fake)
    figure = Figure(figsize=(style.WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    _draw_histogram(axes, p_true[0], is_fake, top=1)
    axes.set_title(f"n = {is_fake.size:,} validation images, 1 epoch: all variabilities are 0")
    axes.set_xlabel("confidence: probability of the true label")
    axes.legend(frameon=False, loc="upper left", reverse=True)
    return figure


def _style_epochs(axes: Axes, epochs: Sequence[float], *, room: float) -> None:
    style.style_axes(axes)
    axes.set(xlabel="epoch", xlim=(min(epochs) - room, max(epochs) + room))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_prop_cycle(marker=["." if len(epochs) <= MAX_MARKERS else "None"])


def _draw_losses(axes: Axes, history: Sequence[Row]) -> None:
    for key, (label, line, color) in LOSS_STYLES.items():
        points = [(row["epoch"], row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), linestyle=line, color=color, label=label)
    axes.set_ylabel("loss, nats")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)


def _draw_accuracy(axes: Axes, rows: Sequence[Row], best: Row) -> None:
    percent = 100 * style.unit_interval([row["eval_accuracy"] for row in rows])
    axes.plot([row["epoch"] for row in rows], percent, color=style.BLUE, clip_on=False)
    axes.set(ylim=style.percent_range(percent), ylabel="validation accuracy, %")
    if "eval_accuracy" in best:
        value = 100 * best["eval_accuracy"]
        auc = f", ROC AUC {best['eval_roc_auc']:.4f}" if "eval_roc_auc" in best else ""
        label = f"best: epoch {best['epoch']:g}, {value:.2f}%{auc}"
        axes.plot([best["epoch"]], [value], "o", color=style.VERMILLION, markersize=8, clip_on=False, label=label)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, handletextpad=0.2)


def _accuracy_dots(names: Sequence[str], percent: style.Floats) -> Figure:
    order = np.argsort(percent, kind="stable")
    figure = Figure(figsize=(style.WIDTH, 0.9 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    style.style_axes(axes)
    axes.plot(percent[order], range(len(names)), "o", color=style.BLUE, markersize=7, clip_on=False)
    labels = [f"{names[index]} {percent[index]:.1f}" for index in order]
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.set(xlim=style.percent_range(percent), ylim=(-0.6, len(names) - 0.4), xlabel="validation accuracy, %")
    return figure


def _accuracy_lines(names: Sequence[str], percent: style.Floats, epochs: Sequence[int]) -> Figure:
    height = max(4.2, 1.0 + 0.24 * len(names))
    figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
    axes = figure.subplots()
    _style_epochs(axes, epochs, room=0)
    low, high = style.percent_range(percent)
    axes.set(ylim=(low, high), ylabel="validation accuracy, %")
    order = np.argsort(percent[:, -1], kind="stable")
    places = style.push_apart((percent[order, -1] - low) / (high - low), gap=LABEL_HEIGHT / (height - 0.7))
    for index, place in zip(order, places, strict=True):
        line, color = LINE_STYLES[index % len(LINE_STYLES)]
        end = percent[index, -1]
        axes.plot(epochs, percent[index], linestyle=line, color=color, label=names[index], clip_on=False)
        axes.annotate(
            f"{names[index]} {end:.1f}", (epochs[-1], end), (1.06, place), textcoords="axes fraction", va="center",
            arrowprops={"arrowstyle": "-", "color": color, "shrinkB": 0, "relpos": (0, 0.5)}, parse_math=False,
        )  # fmt: skip
    return figure


def _draw_histogram(
    axes: Axes, values: style.Floats, is_fake: NDArray[np.bool_], *, top: float, along: str = "x"
) -> None:
    style.style_axes(axes)
    groups = [values[~is_fake], values[is_fake]]
    labels = [f"{name}, n = {len(group):,}" for name, group in zip(LABEL_NAMES, groups, strict=True)]
    heights, *_ = axes.hist(
        groups, bins=40, range=(0, top), histtype="step", log=True, linewidth=1.4, label=labels,
        orientation="vertical" if along == "x" else "horizontal", color=[style.BLUE, style.VERMILLION],
    )  # fmt: skip
    up = "y" if along == "x" else "x"
    counts = (0.7, max(12, 2 * np.max(heights)))  # more than a decade, so that minor ticks have no labels
    axes.set(**{f"{along}lim": (-0.02 * top, 1.02 * top), f"{up}lim": counts, f"{up}label": "images"})


def _data_map(p_true: style.Floats, is_fake: NDArray[np.bool_]) -> Figure:
    confidence, variability = p_true.mean(axis=0), np.minimum(p_true.std(axis=0), 0.5)  # rounding may exceed the bound
    figure = Figure(figsize=(style.WIDTH, 5.6), layout="constrained")
    (above, corner), (axes, beside) = figure.subplots(
        2, 2, sharex="col", sharey="row", width_ratios=(5, 1), height_ratios=(1, 4)
    )
    corner.set_axis_off()
    _draw_histogram(above, variability, is_fake, top=0.5)
    _draw_histogram(beside, confidence, is_fake, top=1, along="y")
    style.style_axes(axes)
    order = np.argsort(variability, kind="stable")  # mixes the labels, so that neither covers the other
    colors = np.where(is_fake, style.VERMILLION, style.BLUE)[order].tolist()
    size = float(np.clip(45_000 / len(order), 9, 36))  # points squared
    axes.scatter(variability[order], confidence[order], c=colors, s=size, alpha=0.4, linewidths=0, rasterized=True)
    # All points satisfy variability**2 <= confidence * (1 - confidence); the labels are outside or at the tip.
    for word, x, y in (("easy to learn", 0.2, 0.97), ("hard to learn", 0.2, 0.03), ("ambiguous", 0.42, 0.5)):
        axes.text(x, y, word, va="center", style="italic", color=style.INK, size=12)
    axes.set(xlabel="variability: standard deviation over epochs", ylabel="confidence: mean probability of true label")
    above.set_title(f"n = {len(is_fake):,} validation images, {len(p_true)} epochs")
    figure.legend(*above.get_legend_handles_labels(), loc="upper right", frameon=False, reverse=True)
    return figure
