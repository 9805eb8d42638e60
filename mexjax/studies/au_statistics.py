"""Numbers about action units: how they go together, how long clips are, what features know."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy

from mexjax.errors import ConfigError, DataError

MIN_CLIPS = 4  # the probe leaves out subjects with fewer clips


def correlations(labels: np.ndarray) -> np.ndarray:
    """Pearson correlation of action units over clips: f64[A, A]; nan of a unit that never changes.

    Args:
      labels: 0/1 [N, A].
    """
    centred = labels - labels.mean(axis=0)
    products = centred.T @ centred
    size = np.sqrt(np.diag(products))
    scale = np.outer(size, size)
    out = np.full(products.shape, np.nan)
    return np.divide(products, scale, out=out, where=scale > 0)


def cluster_order(correlation: np.ndarray) -> np.ndarray:
    """i64[A]: units so that those that go together are neighbours (average linkage of 1 - r).

    Units without a correlation come last.
    """
    present = np.flatnonzero(~np.isnan(np.diag(correlation)))
    absent = np.setdiff1d(np.arange(len(correlation)), present)
    if len(present) < 3:
        return np.concatenate([present, absent])
    distance = 1 - correlation[np.ix_(present, present)]
    condensed = distance[np.triu_indices(len(present), 1)]
    linkage = hierarchy.linkage(np.maximum(condensed, 0), "average", optimal_ordering=True)
    return np.concatenate([present[hierarchy.leaves_list(linkage)], absent])


def clip_lengths(table: pd.DataFrame) -> pd.DataFrame:
    """Count the clips of each dataset, and give quantiles of their frames and seconds.

    Args:
      table: columns dataset, n_frames and fps (nan or 0 where it is not known).
    """
    rows = []
    for name, part in table.groupby("dataset", sort=False):
        frames = part["n_frames"].to_numpy(float)
        fps = part["fps"].to_numpy(float)
        is_known = fps > 0
        low, middle, high = np.quantile(frames, (0.05, 0.5, 0.95))
        seconds = np.median(frames[is_known] / fps[is_known]) if is_known.any() else np.nan
        rows.append(
            {
                "dataset": name,
                "clips": len(part),
                "median_frames": middle,
                "frames_5": low,
                "frames_95": high,
                "shorter_than_8": int((frames < 8).sum()),
                "median_seconds": seconds,
            }
        )
    return pd.DataFrame(rows)


def subject_probe(
    features: np.ndarray, subject: np.ndarray, fold: np.ndarray, *, seed: int = 0
) -> dict[str, float]:
    """Accuracy of a linear probe that tells the subjects of held-out clips apart.

    In each fold, whose features are of one network that never saw its subjects, a logistic
    regression on standardised features learns the subjects of some of the clips and is asked for
    those of the others (stratified halves of subjects with at least `MIN_CLIPS` clips).

    Args:
      features: f[N, ...], flattened here.
      subject: U[N].
      fold: U[N].
      seed: seed of the split.

    Returns:
      `accuracy`, mean over folds weighted by the clips asked for; `chance`, the same of always
      naming the most frequent subject; `clips`.

    Raises:
      ConfigError: scikit-learn is not installed.
      DataError: no fold has two subjects with enough clips.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import train_test_split
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ConfigError("The probe needs scikit-learn: pip install scikit-learn.") from error
    right = often = total = 0
    for name in np.unique(fold):
        rows = np.flatnonzero(fold == name)
        _, inverse, counts = np.unique(subject[rows], return_inverse=True, return_counts=True)
        rows = rows[counts[inverse] >= MIN_CLIPS]
        if len(set(subject[rows].tolist())) < 2:
            continue
        x, y = features[rows].reshape(len(rows), -1), subject[rows]
        train, test = train_test_split(
            np.arange(len(rows)), test_size=0.5, random_state=seed, stratify=y
        )
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
        probe.fit(x[train], y[train])
        right += int((probe.predict(x[test]) == y[test]).sum())
        _, in_test = np.unique(y[test], return_counts=True)
        often += int(in_test.max())
        total += len(test)
    if not total:
        raise DataError(
            f"No held-out fold has two subjects with {MIN_CLIPS} clips each, so there is nothing"
            " to probe. Run a larger share of the data."
        )
    return {"accuracy": right / total, "chance": often / total, "clips": total}


def embed(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """t-SNE of f[N, ...]: f32[N, 2].

    Raises:
      ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ConfigError("t-SNE needs scikit-learn: pip install scikit-learn.") from error
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat = (flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-9)
    size = min(50, *flat.shape)
    flat = PCA(size, random_state=seed).fit_transform(flat)
    perplexity = min(30.0, max(2.0, (len(flat) - 1) / 4))
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    return places.astype(np.float32)
