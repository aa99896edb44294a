"""Are there outlier tokens, do they attract attention, and do maps of attention show them?

Darcet et al. (2024, *Vision Transformers Need Registers*, ICLR) found patches of large norm in large transformers,
which hold global information in place of their own, and are bright in maps of attention.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from realfake_hf.attribution.explain import explain
from realfake_hf.attribution.layout import layout_of
from realfake_hf.attribution.methods import ATTENTION_METHODS
from realfake_hf.attribution.tokens import OUTLIER, trace_tokens
from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.agreement import SPLIT_MEASURES, agreement
from realfake_hf.explain_study.maps import Maps, Plain, Sample, StudyModel, Values, is_empty, to_grid
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences

_BATCH: Final = 32  # images whose attention and gradients are in memory at once

Flags = NDArray[np.bool_]


def measure_sinks(models: Sequence[StudyModel], sample: Sample, *, samples: int = 1000, seed: int = 0) -> Plain:
    """Measure norms of tokens and the attention that they receive, and maps with and without outlier tokens.

    The seed is that of the bootstrap. The result is plain JSON: the number of images, the norm of an outlier in
    medians (`cut`), and for each of the `models` either why it is `skipped`, or its `blocks`, see `_describe`; the
    number of images with `late` outliers, after any block of the second half; and for each attention method its
    `maps` without them, see `_compare_maps`, none without late outliers. The p-values of all differences are corrected
    together.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    results = {model.name: _measure(model, sample, resampling) for model in models}
    measured = to_plain({"n": len(sample), "cut": OUTLIER, "measures": SPLIT_MEASURES, "models": results})
    rows = [row for tested in measured["models"].values() for row in tested.get("maps", {}).values()]
    correct_differences([row["excess"] for row in rows])
    return measured


def without_outliers(maps: Maps, outlier: Flags) -> Maps:
    """Replace outlier cells by the median of the other cells of their map; both are (n, grid_h, grid_w)."""
    others = np.nanmedian(np.where(outlier, np.nan, maps), axis=(1, 2), keepdims=True)
    return np.where(outlier, others, maps)


def _measure(model: StudyModel, sample: Sample, resampling: Resampling) -> Plain:
    network, values = model.detector.single_view(sample.images)
    if refusal := layout_of(network, values).refusal:
        return {"skipped": refusal}
    parts = [trace_tokens(network, batch) for batch in torch.split(values, _BATCH)]
    norms, received, outlier = (
        torch.cat([getattr(part, name) for part in parts], dim=1).cpu().numpy()
        for name in ("norms", "received", "is_outlier")
    )
    special = parts[0].special
    late = outlier[len(outlier) // 2 :, :, special:].any(axis=0).reshape(-1, *parts[0].grid)
    methods = [method for method in model.methods if method in ATTENTION_METHODS] if late.any() else []
    return {
        "special": special,
        "grid": parts[0].grid,
        "blocks": [_describe(*block, special, resampling) for block in zip(norms, received, outlier, strict=True)],
        "late": int(late.any(axis=(1, 2)).sum()),
        "maps": {method: _compare_maps(_explain(network, values, method), late, resampling) for method in methods},
    }


def _describe(norms: Values, received: Values, outlier: Flags, special: int, resampling: Resampling) -> Plain:
    """Describe the tokens after a block, given (n, tokens) each.

    Means over images of the `median`, 99th percentile (`p99`) and `largest` norm of patches, of the norm of `special`
    tokens, and of the share of `outliers` among patches; the largest norm of any patch in medians of its image
    (`largest_ratio`); and the mean `attention` in the block on a token of each kind, 1 if uniform.
    """
    patches = norms[:, special:]
    median = np.median(patches, axis=1)
    is_special = np.broadcast_to(np.arange(norms.shape[1]) < special, norms.shape)
    kinds = {"special": is_special, "outliers": outlier, "rest": ~(is_special | outlier)}
    means = {
        "median": median,
        "p99": np.quantile(patches, 0.99, axis=1),
        "largest": patches.max(axis=1),
        "special": _mean_where(norms, is_special),
        "outliers": outlier[:, special:].mean(axis=1),
    }
    relative = received * received.shape[1]
    return {
        **{name: resampling.mean(values) for name, values in means.items()},
        "largest_ratio": float((patches.max(axis=1) / median).max()),
        "attention": {kind: resampling.mean(_mean_where(relative, where)) for kind, where in kinds.items()},
    }


def _explain(network: PreTrainedModel, values: Tensor, method: str) -> Maps:
    """Explain the predicted labels of images by one method: (n, grid_h, grid_w) in [0, 1]."""
    batches = torch.split(values, _BATCH)
    return np.stack([found.map for batch in batches for found in explain(network, batch, method=method)])


def _compare_maps(maps: Maps, outlier: Flags, resampling: Resampling) -> Plain:
    """Compare maps with themselves `without_outliers`, over the images that have some.

    That is their agreement, and the `excess`: the value of outlier cells less the median of the other cells.
    """
    changed = without_outliers(maps, outlier)
    counts = outlier.any(axis=(1, 2)) & ~is_empty(maps)
    same = agreement(to_grid(maps), to_grid(changed))
    excess = _mean_where((maps - changed).reshape(len(maps), -1), outlier.reshape(len(maps), -1))
    means = {name: resampling.mean(np.where(counts, same[name], np.nan)) for name in SPLIT_MEASURES}
    return {**means, "excess": resampling.change(np.where(counts, excess, np.nan))}


def _mean_where(values: NDArray[Any], where: Flags) -> Values:
    """Return the mean of the chosen values of each row, (n, tokens): (n,), NaN without any."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray((values * where).sum(axis=1, dtype=np.float64) / where.sum(axis=1))
