"""Made-up results of an explanation study, in the shape of `results/explanation_study.json`, and a gallery."""

import copy
from itertools import combinations

import numpy as np

from realfake_hf.explain_study.run import ExplainedImage

METHODS = {
    "cnn": ["grad_cam", "integrated_gradients"],
    "vit": ["rollout", "last_attention", "gradient_rollout", "relevance", "grad_cam", "integrated_gradients"],
}
MEASURES = ("iou_top_10", "iou_top_20", "spearman", "pearson", "ssim", "centre_distance")
CONTENT = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
AREAS, FILLS, STEPS = (0.25, 0.5, 0.75), ("blur", "mean"), 8
TESTS = (*(f"{test}, {fill}" for test in ("deletion", "insertion") for fill in (*FILLS, "linear")), "Fid+", "Fid-")
PLANTINGS = ("fake in real", "real in fake")
TARGETS = ("truth", "predicted", "FAKE", "REAL")


def mean(value, *, half=0.012, n=1200, undefined=0):
    """An estimate with an interval of a given half width, or an undefined one."""
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0, "undefined": n}
    return {"value": value, "low": value - half, "high": value + half, "n": n, "undefined": undefined}


def gap(value, *, p_holm=None, **others):
    """A difference, significant where its interval excludes 0 if no corrected p-value is given."""
    found = mean(value, **others)
    if value is None:
        return found
    is_clear = not found["low"] < 0 < found["high"]
    p_holm = (0.001 if is_clear else 0.6) if p_holm is None else p_holm
    return found | {"p_value": p_holm / 10, "p_holm": p_holm}


def made_up_study():
    rng = np.random.default_rng(0)
    return {
        "settings": {"n": 1200, "seed": 0, "methods": {"integrated_gradients": {"steps": 16}}},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "python": "3.11.2",
        "versions": {"torch": "2.13.0", "transformers": "5.24.0", "numpy": "2.4.1"},
        "machine": {"system": "Linux", "processor": "a processor", "cores": 2, "device": "cpu"},
        "seconds": 1234.5,
        "data": {"source": "cifake", "split": "test", "sample": sample()},
        "models": {
            "cnn": {
                "place": "models/cnn", "methods": METHODS["cnn"], "accuracy": 0.9524, "training": trained(0, 12),
                "twin": {"place": "runs/cnn", "training": trained(1, 12)},
            },
            "vit": {
                "place": "models/vit", "methods": METHODS["vit"], "accuracy": 0.9766, "training": None, "twin": None,
            },
        },
        "grid": [8, 8],
        "agreement": {"by_target": {target: agreement(rng) for target in TARGETS}},
        "faithfulness": faithfulness(rng),
        "sanity": {"n": 100, "models": {model: cascades(model) for model in METHODS}},
        "planted": planted(rng),
        "causal": causal(),
        "entity": entity(),
        "grids": grids(rng),
        "patching": patching(rng),
        "sinks": sinks(),
    }  # fmt: skip


def trained(seed, epochs):
    return {"seed": seed, "epochs": epochs, "n": 95_000, "accuracy": 0.95}


def sample():
    return {
        "n": 1200, "of": 20_000, "n_real": 600, "n_fake": 600, "content": dict.fromkeys(CONTENT, 120),
        "right": {"cnn": 900, "vit": 950}, "all_right": 700, "strata": 80,
    }  # fmt: skip


def agreement(rng):
    keys = [f"{model} {method}" for model, methods in METHODS.items() for method in methods]
    maps = {
        key: {
            "model": key.split()[0], "method": key.split()[1], "options": {}, "empty": 0, "native_grid": [8, 8],
            "layer": "features.3" if "grad_cam" in key else None,
        }
        for key in keys
    }  # fmt: skip
    return {
        "maps": maps,
        "chance": {"iou_top_10": 0.053, "iou_top_20": 0.111, "spearman": 0.0, "pearson": 0.0},
        "pairs": [a_pair(*pair, rng) for pair in combinations(keys, 2)],
        "centre": {key: dict.fromkeys(MEASURES, mean(rng.uniform(0.12, 0.3))) for key in keys},
        "ceiling": {key: dict.fromkeys(MEASURES, mean(rng.uniform(0.4, 0.6))) for key in keys if "cnn" in key},
    }


def a_pair(a, b, rng):
    level = (0.18 if a.split()[0] != b.split()[0] else 0.35) + rng.uniform(-0.04, 0.08)
    found = {
        measure: {
            "same_picture": mean(level if measure != "spearman" else 2 * level - 0.4),
            "shuffled": mean(level - 0.03),
            "random_weights": mean(0.12 + rng.uniform(-0.02, 0.02)),
            "above_shuffled": gap(0.03),
        }
        for measure in MEASURES
    }
    groups = {
        "all_right": mean(level + 0.01, n=700),
        "some_wrong": mean(level - 0.01, n=490, undefined=10),
        "right_less_wrong": gap(0.02),
    }
    return {
        "a": a, "b": b, "measures": found,
        **{name: dict.fromkeys(MEASURES, value) for name, value in groups.items()},
        "by_label": {label: dict.fromkeys(MEASURES, mean(level, n=600)) for label in ("REAL", "FAKE")},
        "by_content": {name: dict.fromkeys(MEASURES, mean(level, n=120)) for name in CONTENT},
    }  # fmt: skip


def less(values, *, n=256):
    """Differences to both references by test, one of the centre prior's size less."""
    by_test = {f"{test}_less_random": gap(value, n=n) for test, value in values.items()}
    return by_test | {f"{test}_less_centre": gap(value - 0.02, n=n) for test, value in values.items()}


def faithfulness(rng):
    models = {}
    for model, methods in METHODS.items():
        rows = {}
        for position, method in enumerate([*methods, "random order", "centre prior"]):
            pull = 0.3 + 0.4 * position + rng.uniform(0, 0.1)
            share = np.linspace(0, 1, STEPS + 1)
            change = 0.02 * (position - 2)
            rows[method] = {
                "deletion": mean(0.6, n=256), "insertion": mean(0.7, n=256),
                "deletion_curve": (0.97 - 0.47 * share**pull).tolist(),
                "insertion_curve": (0.5 + 0.47 * share**pull).tolist(),
                **less({"deletion": change, "insertion": -change}),
            }  # fmt: skip
        models[model] = dict.fromkeys((*FILLS, "linear"), without_own_differences(rows))
    return {
        "n": 256, "steps": STEPS, "fills": [*FILLS, "linear"], "models": models,
        "fidelity": {"vit": fidelity(METHODS["vit"])},
        "rankings": {"cnn": rankings(METHODS["cnn"], TESTS[:-2]), "vit": rankings(METHODS["vit"], TESTS)},
    }  # fmt: skip


def without_own_differences(rows):
    """Random order is compared with nothing, and the centre prior with random order only."""
    excluded = {"random order": ("_less_random", "_less_centre"), "centre prior": ("_less_centre",)}
    return {
        name: {key: value for key, value in row.items() if not key.endswith(excluded.get(name, ("-",)))}
        for name, row in rows.items()
    }


def fidelity(methods):
    rows = {
        name: {
            "plus": mean(0.2), "minus": mean(0.1), "difference": mean(0.1),
            **less({"plus": 0.04 * (2 - place), "minus": 0.03 * (place - 2), "difference": 0.05 * (2 - place)}),
        }
        for place, name in enumerate([*methods, "random order", "centre prior"])
    }  # fmt: skip
    return {"share": 0.5, "same_label": mean(0.97), "orders": without_own_differences(rows)}


def rankings(methods, tests):
    ranks = {
        test: {name: mean(1 + (place + shift) % len(methods), half=1, n=250) for place, name in enumerate(methods)}
        for shift, test in enumerate(tests)
    }
    pairs = [{"a": a, "b": b, "tau": mean(0.4 if a[0] == b[0] else -0.2)} for a, b in combinations(tests, 2)]
    return {"ranks": ranks, "pairs": pairs, "mean_tau": mean(0.1, half=0.2, n=250, undefined=6)}


def cascades(model):
    stages = ["classifier", "layers 11-9", "layers 8-6", "layers 5-3", "layers 2-0", "embeddings"]
    stages = stages if model == "vit" else ["classifier", "features.1", "features.0"]
    methods = {
        method: [
            mean((1.0 if method == "rollout" and not stage else 0.9 - 0.1 * position - 0.12 * stage), n=100, half=0.04)
            for stage in range(len(stages))
        ]
        for position, method in enumerate(METHODS[model])
    }
    return {"stages": stages, "methods": methods}


def planted(rng):
    def row():
        hits = rng.uniform(0.3, 0.7)
        return {
            "planted": {"hits": mean(hits, half=0.06, n=200), "mass": mean(0.33, n=200), "roc_auc": mean(0.7, n=200)},
            "control": {"hits": mean(0.28, half=0.06, n=200), "mass": mean(0.25, n=200), "roc_auc": mean(0.5, n=200)},
            "difference": {
                "hits": gap(hits - 0.28, half=0.06, n=200),
                "mass": gap(0.08, n=200),
                "roc_auc": gap(0.2, n=200),
            },
        }

    models = {
        model: {
            planting: {
                "n": 200,
                "p_fake_moved": {"planted": gap(0.2, n=200), "control": gap(0.01, n=200)},
                "methods": {name: row() for name in methods},
            }
            for planting in PLANTINGS
        }
        for model, methods in METHODS.items()
    }
    return {"models": models, "chance": 0.25, "class_methods": ["gradient_rollout", "grad_cam", "relevance"]}


def grids(rng):
    def row():
        mass = rng.uniform(0.3, 0.6)
        less = {"hits": gap(0.3, n=100), "mass": gap(mass - 0.25, n=100), "roc_auc": gap(0.2, n=100)}
        means = {
            "hits": mean(0.55, half=0.1, n=100),
            "mass": mean(mass, half=0.04, n=100),
            "roc_auc": mean(0.7, n=100),
        }
        return {**means, "less": {"prior": less}}

    models = {
        model: {
            f"{target} among {other}": {
                "n": 100,
                "target": target.upper(),
                "p_target": mean(0.4, n=100),
                "methods": {name: row() for name in methods},
            }
            for target, other in (("fake", "real"), ("real", "fake"))
        }
        for model, methods in METHODS.items()
    }
    chance = {"hits": 0.25, "mass": 0.25, "roc_auc": 0.5}
    return {"models": models, "chance": chance, "class_methods": ["gradient_rollout", "grad_cam", "relevance"]}


def performance(loss):
    accuracy = mean(0.95 - loss, n=4000)
    rates = dict.fromkeys(("accuracy", "accuracy_real", "accuracy_fake"), accuracy)
    return {**rates, "called_fake": mean(0.5, n=4000), "roc_auc": mean(0.99 - loss, n=4000)}


def both(value):
    return {"accuracy": gap(value), "roc_auc": gap(value)}


def causal():
    def hiding(area, fill):
        loss = area * (1 if fill == "blur" else 0.8)
        less = {**both(-0.2 * area), "by_content": dict.fromkeys(CONTENT, mean(-0.1))}
        hidden = {"centre": performance(0.5 * loss), "rim": performance(0.3 * loss), "corner": performance(0.4 * loss)}
        return {
            "area": area,
            "fill": fill,
            "hidden": hidden,
            "centre_less": {"rim": less, "corner": copy.deepcopy(less)},
        }

    def model():
        return {
            "untouched": performance(0),
            "all_hidden": {fill: performance(0.3) for fill in FILLS},
            "hiding": [hiding(area, fill) for area in AREAS for fill in FILLS],
        }

    shares = [{"area": area, "centre": mean(0.6), "rim": mean(0.4)} for area in (0.25, 0.5)]
    return {
        "n": 4000, "areas": list(AREAS), "fills": list(FILLS), "models": {name: model() for name in METHODS},
        "map_shares": {"cnn grad_cam": shares},
    }  # fmt: skip


def entity():
    regions = {"entity": 0.3, "background": 0.1, "all but the entity": 0.2, "everything": 0.4}

    def row():
        return {
            "hidden": {region: performance(loss) for region, loss in regions.items()},
            "differences": {"entity less background": both(-0.2), "entity alone less fill": both(0.2)},
        }

    models = {name: {"untouched": performance(0), "fills": {fill: row() for fill in FILLS}} for name in METHODS}
    maps = {"cnn grad_cam": {"mass": mean(0.4), "mass_less_area": gap(0.15)}}
    counts = {"n": 500, "n_real": 240, "n_fake": 260, "area": mean(0.25), "fills": list(FILLS)}
    return {**counts, "models": models, "maps": maps}


def patching(rng):
    def row(name):
        level = rng.uniform(0.1, 0.4)
        means = {"same": mean(level, n=96, undefined=4), "other": mean(level - 0.05), "less_other": gap(0.05)}
        return means if name == "centre prior" else means | {"less_centre": gap(0.1 - level)}

    models = {
        model: {
            "layer": "vit.layers.5", "native_grid": [8, 8], "n": 96, "total": mean(9.0), "cells": mean(4.0),
            "special": mean(2.0), "top_share": mean(0.5),
            "maps": {name: {"iou_top_20": row(name), "spearman": row(name)} for name in (*methods, "centre prior")},
        }
        for model, methods in METHODS.items()
    }  # fmt: skip
    return {"n": 100, "top": 0.2, "measures": ["iou_top_20", "spearman"], "models": models}


def sinks():
    def block(number):
        share = 0.0 if number < 3 else 0.02
        attention = {"special": mean(3.0), "outliers": mean(2.0 if share else None), "rest": mean(0.9)}
        norms = {"median": mean(10.0), "p99": mean(20.0), "largest": mean(60.0), "special": mean(30.0)}
        return {**norms, "outliers": mean(share), "largest_ratio": 6.0, "attention": attention}

    row = {"iou_top_20": mean(0.8, n=12), "spearman": mean(0.9, n=12), "excess": gap(0.3, n=12)}
    vit = {
        "special": 1, "grid": [8, 8], "blocks": [block(number) for number in range(6)], "late": 12,
        "maps": {"rollout": row, "last_attention": row},
    }  # fmt: skip
    cnn = {"skipped": "none of its layers returns attention weights"}
    return {"n": 200, "cut": 4.0, "measures": ["iou_top_20", "spearman"], "models": {"cnn": cnn, "vit": vit}}


def made_up_gallery(content="cat"):
    """Three images: both models are right, one is wrong, both are wrong."""
    rng = np.random.default_rng(0)
    keys = [(model, method) for model, methods in METHODS.items() for method in methods]
    return [
        ExplainedImage(
            image=rng.integers(256, size=(32, 32, 3), dtype=np.uint8),
            is_fake=True,
            content=content,
            p_fake=p_fake,
            maps={key: np.zeros((8, 8)) if key[1] == "last_attention" else rng.random((8, 8)) for key in keys},
        )
        for p_fake in ({"cnn": 0.2, "vit": 0.99}, {"cnn": 0.9, "vit": 1.0}, {"cnn": 0.2, "vit": 0.3})
    ]
