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


def learning_curves(history: Sequence[Row], *, best_epoch: int) -> Figure:
    """Draw the losses of a run and its validation accuracy, with the epoch of the saved model marked.

    The history has one row per epoch with `epoch`, `eval_accuracy`, `eval_roc_auc` ([0, 1]) and any of `train_loss`
    and `eval_loss` (nats).
    """
    evaluated = [row for row in history if "eval_accuracy" in row]
    best = next(row for row in evaluated if row["epoch"] == best_epoch)
    percent = 100 * np.array([row["eval_accuracy"] for row in evaluated])
    figure = Figure(figsize=(style.WIDTH, 3.5), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    for axes in (losses, accuracy):
        _style_epochs(axes, [row["epoch"] for row in history], room=0.5)
        axes.axvline(best_epoch, color=style.INK, linewidth=0.8, linestyle=":")
    _draw_losses(losses, history)
    accuracy.plot([row["epoch"] for row in evaluated], percent, color=style.BLUE, clip_on=False)
    accuracy.set(ylim=style.percent_range(percent), ylabel="validation accuracy, %")
    value = 100 * best["eval_accuracy"]
    label = f"best: epoch {best_epoch}, {value:.2f}%, ROC AUC {best['eval_roc_auc']:.4f}"
    accuracy.plot([best_epoch], [value], "o", color=style.VERMILLION, markersize=8, clip_on=False, label=label)
    accuracy.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, handletextpad=0.2)
    return figure


def content_accuracy(accuracy: Mapping[str, Sequence[float]], *, epochs: Sequence[int]) -> Figure:
    """Draw the validation accuracy, in [0, 1], of each content over the epochs, each line labelled at its end."""
    names, percent = list(accuracy), 100 * np.array(list(accuracy.values()))
    height = max(4.2, 1.0 + 0.24 * len(names))
    figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
    axes = figure.subplots()
    _style_epochs(axes, epochs, room=0 if len(epochs) > 1 else 0.5)
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


def confusion_matrix(counts: NDArray[np.integer], *, title: str) -> Figure:
    """Draw the (2, 2) counts of a confusion matrix: rows are the true labels REAL and FAKE, columns the predictions.

    Each cell shows its count and its share of the row, which is also its colour. The title names the images.
    """
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
    axes.set(frame_on=False, title=f"{title}, n = {counts.sum():,}")
    return figure


def difficulty_map(p_true: NDArray[np.floating], *, is_fake: NDArray[np.bool_]) -> Figure:
    """Draw the data map of Swayamdipta et al. (2020), *Dataset Cartography*, EMNLP.

    The confidence of an image is the mean over epochs of the probability of its true label, (epochs, n) in [0, 1]; its
    variability is the population standard deviation, 0 after a single epoch.
    """
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
    above.set_title(f"n = {len(is_fake):,} validation images, epochs: {len(p_true)}")
    figure.legend(*above.get_legend_handles_labels(), loc="upper right", frameon=False, reverse=True)
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
