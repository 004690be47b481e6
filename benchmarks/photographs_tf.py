"""The mend of seed 003 in its own environment: tf.data with augmentation in it, and the same network.

`python photographs_tf.py ROOT SEED EPOCHS BATCH SIDE`. Knows nothing of Caudal. Pictures lie in memory as
bytes at their final size (`cache`), the rest is mapped in parallel and fetched ahead. fp32: on this kind of
processor Keras is slower with 16 bits. Prints a JSON object. Legend: N pictures, H row, W column, C band.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

layers = keras.layers


def network(side: int) -> Any:
    """The residual network of `caudal.models.residual` with its defaults."""
    x = first = keras.Input((side, side, 3))
    x = layers.Conv2D(16, 3, 2, "same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    width = 16
    for level in range(5):
        x = block(x, 16 * 2**level, width, 2 if level else 1)
        width = 16 * 2**level
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(first, layers.Dense(1, dtype="float32")(x))


def block(x: Any, width: int, before: int, stride: int) -> Any:
    """Twice a convolution and normalization, added to the input or its average."""
    y = layers.Conv2D(width, 3, stride, "same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(width, 3, 1, "same", use_bias=False)(y)
    y = layers.BatchNormalization(gamma_initializer="zeros")(y)
    if stride > 1:
        x = layers.AveragePooling2D(stride, padding="same")(x)
    if width != before:
        x = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(x))
    return layers.ReLU()(layers.Add()([x, y]))


def decode(path: Any, label: Any, side: int) -> tuple[Any, Any]:
    """A file to bytes of its final size."""
    picture = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
    return tf.cast(tf.image.resize(picture, (side, side)), tf.uint8), label


def changed(x_HWC: Any, label: Any) -> tuple[Any, Any]:
    """As the seed has it: flipped, and brighter or darker; scaled."""
    x_HWC = tf.cast(x_HWC, tf.float32) / 127.5 - 1
    x_HWC = tf.image.random_flip_left_right(x_HWC)
    return tf.image.random_brightness(x_HWC, 0.1), label


def plain(x_HWC: Any, label: Any) -> tuple[Any, Any]:
    """Scaled alone."""
    return tf.cast(x_HWC, tf.float32) / 127.5 - 1, label


def auroc(said_N: Any, truth_N: Any) -> float:
    """The share of pairs in the right order; equal ones count half."""
    above = said_N[truth_N == 1][:, None] - said_N[truth_N == 0][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def main(root: Path, seed: int, epochs: int, batch: int, side: int) -> None:
    """Load, train, score."""
    keras.utils.set_random_seed(seed)
    began = time.perf_counter()
    with (root / "labels.csv").open() as file:
        lines = list(csv.DictReader(file))
    sets = {}
    for part in ("train", "val", "test"):
        mine = [line for line in lines if line["split"] == part]
        paths = [str(root / "images" / line["file"]) for line in mine]
        labels = np.array([float(line["label"]) for line in mine], np.float32)
        known = tf.data.Dataset.from_tensor_slices((paths, labels))
        known = known.map(lambda p, y: decode(p, y, side), num_parallel_calls=tf.data.AUTOTUNE).cache()
        if part == "train":
            share = float((labels == 0).sum() / (labels == 1).sum())
            known = known.shuffle(len(mine), seed).map(changed, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            known = known.map(plain, num_parallel_calls=tf.data.AUTOTUNE)
        sets[part] = known.batch(batch, drop_remainder=part == "train").prefetch(tf.data.AUTOTUNE), labels
    model = network(side)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.3), keras.losses.BinaryCrossentropy(from_logits=True)
    )
    weights = {0: 1.0, 1: share}
    model.fit(
        sets["train"][0], validation_data=sets["val"][0], epochs=epochs, class_weight=weights, verbose=0
    )
    said = model.predict(sets["test"][0], verbose=0)[:, 0]
    seconds = time.perf_counter() - began
    found = {"seconds": seconds, "auroc": auroc(said, sets["test"][1]), "parts": {"whole": seconds}}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
