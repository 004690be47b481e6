"""tf.data on TFRecord files: parallel reads and maps tuned by AUTOTUNE, two batches prefetched.

Pictures are decoded by TensorFlow's own operators. The training consumer is not to be had here: it is a
PyTorch model, and this environment has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import child
from benchmarks.peers.sources import SIDE_PX, mapped, windows

SHARDS = 8
SHAPES = {"scenes": "uint16", "chips": "uint16", "ragged": "float32", "photographs": "uint8"}


def batches(job: child.Job) -> Iterator[dict[str, Any]]:
    """Batches as numpy arrays that share TensorFlow's memory."""
    import tensorflow as tf

    kind, tune = job.kind, tf.data.AUTOTUNE
    side = int(job.facts.get("patch_px", 128))
    features = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}

    def parse(record: Any) -> dict[str, Any]:
        found = tf.io.parse_single_example(record, features)
        if kind == "photographs":
            x = tf.io.decode_jpeg(found["x"], ratio=1, dct_method="INTEGER_FAST")
            x.set_shape([None, None, 3])
            return {"x": tf.cast(tf.image.resize(x, [SIDE_PX, SIDE_PX]), tf.uint8)}
        x = tf.io.decode_raw(found["x"], SHAPES[kind])
        if kind == "ragged":
            return {"x": tf.reshape(x, [-1, 64]), "y": found["y"]}
        fixed = {"x": tf.reshape(x, [side, side, 5])}
        return fixed | {"y": found["y"]} if kind == "chips" else fixed

    files = sorted(str(path) for path in Path(job.own).glob("*.tfrecord"))
    for epoch in job.epochs():
        data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=job.seed + epoch)
        data = data.interleave(
            tf.data.TFRecordDataset, cycle_length=2, num_parallel_calls=2, deterministic=False
        )
        data = data.shuffle(2 * job.batch, seed=job.seed + epoch).map(parse, num_parallel_calls=tune,
                                                                      deterministic=False)  # fmt: skip
        data = data.ragged_batch(job.batch) if kind == "ragged" else data.batch(job.batch)
        yield from data.prefetch(2)


def columns(batch: dict[str, Any]) -> dict[str, Any]:
    """Arrays, without a copy; ragged ones cut into samples."""
    found: dict[str, Any] = {}
    for name, value in batch.items():
        if hasattr(value, "row_splits"):
            found[name] = np.split(value.flat_values._numpy(), value.row_splits.numpy()[1:-1])
        else:
            found[name] = value._numpy()
    return found


def count(batch: dict[str, Any]) -> int:
    """Samples of a batch."""
    return int(batch["x"].shape[0])


def convert(job: child.Job) -> None:
    """Write TFRecord files into `job.own`; rasters as the patches that the others would cut."""
    import tensorflow as tf

    writers = [tf.io.TFRecordWriter(f"{job.own}/{k:02d}.tfrecord") for k in range(SHARDS)]
    for i, (data, y) in enumerate(elements(job)):
        features = {
            "x": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
            "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[y])),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        writers[i % SHARDS].write(example.SerializeToString())
    for writer in writers:
        writer.close()


def elements(job: child.Job) -> Iterator[tuple[bytes, int]]:
    """Bytes and label of each sample; read by plain means, because this environment has few libraries."""
    folder = Path(job.set)
    if job.kind == "photographs":
        yield from ((path.read_bytes(), 0) for path in sorted(folder.glob("*.jpg")))
    elif job.kind == "scenes":
        import tifffile

        side, files = int(job.facts["patch_px"]), sorted(folder.glob("*.tif"))
        places = windows(job.facts, job.seed)
        for number, path in enumerate(files):
            x = tifffile.imread(path)
            for _file, row, col in places[places[:, 0] == number].tolist():
                yield np.ascontiguousarray(x[row : row + side, col : col + side]).tobytes(), 0
    else:
        for path in sorted(folder.glob("*.safetensors")):
            arrays = mapped(str(path))
            if job.kind == "ragged":
                yield arrays["x"].tobytes(), int(arrays["y"])
            else:
                yield from ((x.tobytes(), int(y)) for x, y in zip(arrays["x"], arrays["y"], strict=True))


if __name__ == "__main__":
    child.main(child.Loader(batches, lambda _job: ("tensorflow",), columns, count, convert=convert))
