"""A card that is not there: the code asks for `cuda` and gets it, computed on the CPU, counted as on a card.

What the code reads of a card it reads through `torch.cuda`; those functions answer for this one. Tensors that
are moved or made there are the CPU's own, marked; what comes of them is on the card, too, and takes blocks of
`blocks.Blocks` until it is gone. Past the limit an operation raises torch's own error. Operations on tensors
of both places raise, as on a real card, and so does reading a card's tensor as an array.

It is a model, and says less than a card: what kernels take beside their tensors (cuDNN's workspaces) is not
there, nor is a context's true size, nor the speed. Everything runs in this process, the probe's steps too.
"""

from __future__ import annotations

import gc
import io
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caudal.memory import allocator, vram
from caudal.runs import probe, probe_child
from caudal.runs.probe import ProbeRequest
from tests.card.blocks import MIB, Block, Blocks

GIB = 1024 * MIB
PLACE = torch.device("cuda", 0)
HOST = torch.device("cpu")
_MIXES = ("copy_", "index", "index_put", "index_put_", "_index_put_impl_", "set_", "set_data", "_to_copy")


class Card:
    """A card of `total` bytes. `taking` hears of every operation's result before its bytes are taken."""

    def __init__(self, total: int = 4 * GIB, others: int = 0, context: int = 256 * MIB) -> None:
        self.blocks = Blocks(total, context, others)
        self.taking: Callable[[int], None] = lambda _nbytes: None
        self._held: dict[int, Block | None] = {}
        self._lock = threading.RLock()
        self._here = threading.local()

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor lies on the card."""
        try:
            return tensor.untyped_storage()._cdata in self._held
        except (NotImplementedError, RuntimeError):  # it has no storage
            return False

    def put(self, tensor: torch.Tensor) -> None:
        """Let a tensor lie on the card from now on.

        Raises:
            torch.OutOfMemoryError: there is no room.
        """
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" or storage._cdata in self._held:
            return
        nbytes = storage.nbytes()
        self.taking(nbytes)
        block = self.blocks.take(nbytes) if nbytes else None
        with self._lock:
            self._held[storage._cdata] = block
        weakref.finalize(storage, self._gone, storage._cdata).atexit = False

    def _gone(self, key: int) -> None:
        with self._lock:
            block = self._held.pop(key, None)
        if block is not None:
            self.blocks.give_back(block)

    def afresh(self) -> None:
        """As a process that begins finds it: its own blocks given back, no limit, no peaks."""
        gc.collect()  # graphs of modules are circles
        allocator.settle()
        self.blocks.limit = 1.0
        self.blocks.empty()
        self.blocks.reset_peaks()
        vram._highest[0] = 0

    @property
    def moving(self) -> bool:
        """Whether this thread is moving a tensor, whose place is not that of what it is made of."""
        return getattr(self._here, "moving", False)

    @contextmanager
    def move(self) -> Iterator[None]:
        """Move inside the `with`."""
        self._here.moving = True
        try:
            yield
        finally:
            self._here.moving = False

    @contextmanager
    def modes(self) -> Iterator[None]:
        """This thread's tensors may lie on the card inside the `with`."""
        with _Calls(self), _Operations(self):
            yield

    @contextmanager
    def installed(self) -> Iterator[Card]:
        """`torch.cuda` answers for this card inside the `with`, in all threads that are started there."""
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            for name, answer in self._answers().items():
                patch.setattr(torch.cuda, name, answer)
            autocast = torch.autocast
            patch.setattr(torch, "autocast", lambda _device, *a, **k: autocast("cpu", *a, **k))
            run = threading.Thread.run

            def run_with_card(thread: threading.Thread) -> None:
                with self.modes():
                    run(thread)

            patch.setattr(threading.Thread, "run", run_with_card)
            stack.enter_context(self.modes())
            yield self

    def _answers(self) -> dict[str, Any]:
        blocks = self.blocks

        def limit(share: float, device: object = None) -> None:
            blocks.limit = share

        about = SimpleNamespace(total_memory=blocks.total, name="a model of a card", uuid="model-0")
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda _device: None,
            "synchronize": lambda *_a: None,
            "get_device_name": lambda *_a: about.name,
            "get_device_properties": lambda *_a: about,
            "is_bf16_supported": lambda *_a: True,
            "mem_get_info": lambda *_a: (blocks.left, blocks.total),
            "memory_allocated": lambda *_a: blocks.allocated,
            "memory_reserved": lambda *_a: blocks.reserved,
            "max_memory_allocated": lambda *_a: blocks.most_allocated,
            "max_memory_reserved": lambda *_a: blocks.most_reserved,
            "reset_peak_memory_stats": lambda *_a: blocks.reset_peaks(),
            "set_per_process_memory_fraction": limit,
            "empty_cache": blocks.empty,
            "manual_seed_all": lambda _seed: None,
            "get_rng_state": lambda *_a: torch.get_rng_state(),
            "set_rng_state": lambda state, *_a: torch.set_rng_state(state),
        }


def _is_card(device: object) -> bool:
    if isinstance(device, int) and not isinstance(device, bool):
        return True
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


class _Calls(TorchFunctionMode):
    """Turns what asks for `cuda` into the CPU's, and tells of a tensor where it lies."""

    def __init__(self, card: Card) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, card = dict(kwargs or {}), self._card
        getter = getattr(func, "__self__", None)
        if getter is torch.Tensor.device:
            return PLACE if card.holds(args[0]) else func(*args)
        if getter is torch.Tensor.is_cuda:
            return card.holds(args[0])
        if func is torch.Tensor.numpy and card.holds(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if func is torch.Tensor.cpu:
            return self._to(args[0], HOST, torch.Tensor.to, (args[0], HOST), {})
        if func is torch.Tensor.cuda:
            return self._to(args[0], PLACE, torch.Tensor.to, (args[0], HOST), {})
        if func is torch.Tensor.to:
            return self._moved(args, kwargs)
        kwargs.pop("pin_memory", None)
        asked = kwargs.get("device")
        if asked is None or func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        kwargs["device"] = HOST if _is_card(asked) else asked
        with card.move():
            made = func(*args, **kwargs)
        if _is_card(asked):
            card.put(made)
        return made

    def _moved(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """`Tensor.to` in each of its forms: another's place and type, a place, or a type alone."""
        first = args[1] if len(args) > 1 else None
        if isinstance(first, torch.Tensor):
            place = PLACE if self._card.holds(first) else HOST
            return self._to(args[0], place, torch.Tensor.to, (args[0], HOST, first.dtype, *args[2:]), kwargs)
        if isinstance(first, str | torch.device) or (isinstance(first, int) and not isinstance(first, bool)):
            place = PLACE if _is_card(first) else torch.device(first)
            args = (args[0], place if place.type == "meta" else HOST, *args[2:])
            return self._to(args[0], place, torch.Tensor.to, args, kwargs)
        if kwargs.get("device") is not None:
            place = PLACE if _is_card(kwargs["device"]) else torch.device(kwargs["device"])
            kwargs["device"] = place if place.type == "meta" else HOST
            return self._to(args[0], place, torch.Tensor.to, args, kwargs)
        return torch.Tensor.to(*args, **kwargs)

    def _to(self, tensor: Any, place: torch.device, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        on_card = place.type == "cuda"
        if place.type == "meta" or self._card.holds(tensor) == on_card:
            return func(*args, **kwargs)
        with self._card.move():
            moved = func(*args, **{**kwargs, "copy": True})
        if on_card:
            self._card.put(moved)
        return moved


class _Operations(TorchDispatchMode):
    """Puts what is computed from tensors on the card there, too."""

    def __init__(self, card: Card) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        card = self._card
        result = func(*args, **(kwargs or {}))
        if card.moving:
            return result
        given = [one for one in tree_leaves((args, kwargs or {})) if isinstance(one, torch.Tensor)]
        there = [one for one in given if card.holds(one)]
        if not there:
            return result
        strays = [one for one in given if one.dim() and one.numel() and not card.holds(one)]
        if strays and func.overloadpacket.__name__ not in _MIXES:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {func} got some on cuda:0 and on cpu"
            )
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                card.put(one)
        return result


@contextmanager
def probing_here(card: Card) -> Iterator[None]:
    """Let probes run in this process, on the card as it is for a new one: empty, with nothing set."""

    def run(request: ProbeRequest) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probe_child, "_say", lambda what: said.append(json.loads(json.dumps(what))))
            patch.setattr("sys.stdin", io.StringIO(request.model_dump_json()))
            probe_child.main()
        card.afresh()
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "_run", run)
        yield
