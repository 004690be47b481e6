"""Loading weights of generation beside diffusers and accelerate; running with weights of twice the budget.

Run `python -m benchmarks.generation_load load FOLDER [SCALE]` from the repository, then `run` instead of
`load`. FOLDER gets synthetic weights of true layout if it is not there (scale 3: about 3 GB of fp32).

`load` loads them in child processes under a real memory limit and prints one row a way: peak of charged bytes
(and of resident ones, mapped files included) over the bytes of the target, and seconds. `run` makes a picture
with all weights in memory and one with most of them on disk, and holds the seconds of a step against what was
said beforehand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from caudal.core.units import MIB, Bytes
from caudal.runs.generation.plan import LIBRARIES

WAYS = ("caudal", "diffusers", "accelerate")


def child(way: str, folder: str, precision: str) -> None:
    """Load the UNet, ControlNet, encoders and decoder in one way, and print what it took."""
    import torch
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from caudal.memory import process
    from caudal.memory.meters import PeakMeter, charged_bytes
    from caudal.models.generation.part import PRECISIONS, open_part
    from caudal.runs.generation.studio import open_model

    kinds = {
        "unet": UNet2DConditionModel, "identity": ControlNetModel, "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection,
    }  # fmt: skip
    dtype = PRECISIONS[precision]
    open_model(folder)
    meter, before, began = PeakMeter(), charged_bytes(), time.perf_counter()
    resident = process.status("self")["VmRSS"]
    loaded = []
    for name, kind in kinds.items():
        if way == "caudal":
            loaded.append(open_part(name, open_model(folder)).load("cpu", dtype))
        elif way == "diffusers":
            option = {"dtype": dtype} if "text" in name else {"torch_dtype": dtype, "low_cpu_mem_usage": True}
            loaded.append(kind.from_pretrained(f"{folder}/{name}", local_files_only=True, **option))
        else:
            with init_empty_weights():
                empty = (
                    kind(kind.config_class.from_pretrained(f"{folder}/{name}"))
                    if "text" in name
                    else kind.from_config(kind.load_config(f"{folder}/{name}"))
                )
            file = next(Path(folder, name).glob("*.safetensors"))
            loaded.append(load_checkpoint_and_dispatch(empty, str(file), device_map={"": "cpu"}, dtype=dtype))
    total = sum(
        float(tensor.sum()) for one in loaded for tensor in one.state_dict().values() if tensor.numel()
    )
    seconds = time.perf_counter() - began  # every byte was touched: a mapped file is read, too
    target = sum(t.numel() * t.element_size() for one in loaded for t in one.state_dict().values())
    status = process.status("self")
    print(json.dumps({
        "way": way, "precision": precision, "target": target, "charged": meter.peak() - before,
        "resident": status["VmHWM"] - resident, "seconds": seconds, "finite": total == total,
        "threads": torch.get_num_threads(),
    }))  # fmt: skip


def main(what: str, place: str, scale: int = 3) -> None:
    """Write, then load or run, and print."""
    from tests.generation import big, tiny

    folder = Path(place)
    if not folder.exists():
        big.write_wide(folder, scale)
        subprocess.run(["sync"], check=True)
    size = big.weights_bytes(folder)
    print(f"weights on disk: {Bytes(size)}", flush=True)
    if what == "load":
        _load(folder, size)
    else:
        face = tiny.save_picture(folder.with_name("face.png"), tiny.portrait())
        _run(folder, size, face)


def _load(folder: Path, size: int) -> None:
    from tests.cgroups import run_in_group

    me = [sys.executable, "-m", "benchmarks.generation_load", "child"]
    for precision in ("fp32", "bf16"):
        for way in WAYS:
            _forget(
                folder
            )  # each reads from the disk: what one leaves in the page cache would be the next one's
            done = run_in_group([*me, way, str(folder), precision], 4 * size)
            if done.returncode:
                print(way, precision, "failed:", done.output[-300:], flush=True)
                continue
            row = json.loads(done.output.strip().splitlines()[-1])
            shares = " ".join(f"{key} {row[key] / row['target']:.3f}" for key in ("charged", "resident"))
            print(f"{way:10s} {precision} × target: {shares}, {row['seconds']:.1f} s", flush=True)


def _forget(folder: Path) -> None:
    """Have the system give back the pages of the weights."""
    for path in folder.rglob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _run(folder: Path, size: int, face: Path) -> None:
    from tests.cgroups import run_in_group

    me = [sys.executable, "-m", "tests.generation.big", "generate", str(folder)]
    for name, budget in (("in memory", 2 * size + LIBRARIES), ("half the weights", size // 2)):
        budget = max(budget, LIBRARIES + 300 * MIB) // 4096 * 4096
        more = [str(budget), str(face), str(folder.with_name("out.png")), "64", "6", "exact"]
        done = run_in_group([*me, *more], budget, 900)
        if done.returncode:
            print(name, "failed:", done.output[-300:], flush=True)
            continue
        told = json.loads(done.output.strip().splitlines()[-1])
        metrics = told["metrics"]
        print(
            f"{name}: budget {Bytes(budget)} (weights are {size / budget:.2f} of it),",
            f"peak {Bytes(max(done.peak_charged, told['peak_bytes']['ram']))},",
            f"a step {metrics['seconds_per_step']:.2f} s,",
            f"said beforehand {metrics.get('seconds_per_step_foretold', float('nan')):.2f} s,",
            told["levers"]["offload"],
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(*sys.argv[2:])
    else:
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
