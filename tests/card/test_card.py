"""The model of a card counts as torch's allocator does, and raises where a card would."""

from __future__ import annotations

from itertools import pairwise
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.card.blocks import MIB, Blocks
from tests.card.card import Card


@pytest.mark.parametrize(
    ("asked", "segment"),
    [(1, 2 * MIB), (MIB, 2 * MIB), (MIB + 1, 20 * MIB), (10 * MIB, 10 * MIB), (11 * MIB + 1, 12 * MIB)],
)
def test_a_request_takes_a_segment_of_the_allocators_sizes(asked: int, segment: int) -> None:
    blocks = Blocks(1024 * MIB)
    blocks.take(asked)
    assert blocks.reserved == segment
    assert blocks.allocated >= asked


def test_what_is_free_is_taken_again_and_given_back_before_a_request_is_refused() -> None:
    blocks = Blocks(64 * MIB, context=4 * MIB)
    first = blocks.take(30 * MIB)
    blocks.give_back(first)
    assert (blocks.allocated, blocks.reserved) == (0, 30 * MIB)
    blocks.take(29 * MIB + 512)  # the rest is too small to be split off
    assert blocks.reserved == 30 * MIB
    with pytest.raises(torch.OutOfMemoryError):
        blocks.take(40 * MIB)
    blocks.give_back(blocks.segments[0].blocks[0])
    blocks.take(40 * MIB)
    assert (blocks.reserved, blocks.most_reserved) == (40 * MIB, 40 * MIB)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 24 * MIB)), max_size=60))
def test_blocks_never_overlap_nor_pass_the_limit(acts: list[tuple[bool, int]]) -> None:
    blocks, held = Blocks(128 * MIB), []
    blocks.limit = 0.75
    for taking, size in acts:
        if taking:
            try:
                held.append(blocks.take(size))
            except torch.OutOfMemoryError:
                continue
        elif held:
            blocks.give_back(held.pop(size % len(held)))
        assert blocks.allocated == sum(block.size for block in held)
        assert blocks.allocated <= blocks.reserved <= 96 * MIB
        for segment in blocks.segments:
            assert sum(block.size for block in segment.blocks) == segment.size
            assert not any(a.free and b.free for a, b in pairwise(segment.blocks))


def test_tensors_lie_where_they_are_moved_and_what_comes_of_them_too() -> None:
    card = Card(64 * MIB, context=0)
    with card.installed():
        x = torch.arange(6.0).to("cuda")
        y = (x * 2).view(2, 3)[1]
        assert x.device == y.device == torch.device("cuda", 0)
        assert y.is_cuda
        assert not y.cpu().is_cuda
        assert y.cpu().numpy().tolist() == [6.0, 8.0, 10.0]
        with pytest.raises(TypeError, match="cuda:0"):
            y.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(6)
        del x
        assert card.blocks.allocated == 512, "a view holds what it looks at"
        del y
        assert card.blocks.allocated == 0
        seen: list[torch.device] = []
        other = Thread(target=lambda: seen.append(torch.zeros(3, device="cuda").device))
        other.start()
        other.join()
        assert seen == [torch.device("cuda", 0)]
    assert torch.zeros(2).device.type == "cpu"
    assert not torch.cuda.is_available() or torch.version.cuda


def test_a_gradient_is_counted_and_its_want_of_room_is_torchs_own_error() -> None:
    card = Card(32 * MIB, context=0)
    with card.installed():
        layer = torch.nn.Linear(512, 512).to("cuda")
        weights = card.blocks.allocated
        layer(torch.zeros(8, 512, device="cuda")).sum().backward()
        assert card.blocks.allocated == 2 * weights
        layer.zero_grad()
        card.blocks.others = card.blocks.left
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            layer(torch.zeros(4096, 512, device="cuda"))
