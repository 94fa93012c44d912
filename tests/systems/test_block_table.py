"""Blocks by brute force: where positions lie, what keys stand for, who owns what."""

from __future__ import annotations

import hashlib
import random
import struct

import pytest

from systems.engine.block_table import BlockPool, OutOfBlocks, prefix_keys, slots


@pytest.mark.exercise("engine.block_table.slots")
@pytest.mark.parametrize("size", [1, 3, 4])
def test_slots_are_read_off_a_list_of_all_places(size: int) -> None:
    table = [7, 0, 5, 2]
    every = [block * size + place for block in table for place in range(size)]
    for start in range(len(every) + 1):
        for count in range(len(every) - start + 1):
            assert slots(table, start, count, size) == every[start : start + count]
    assert table == [7, 0, 5, 2]


@pytest.mark.exercise("engine.block_table.slots")
def test_slots_outside_of_the_table_are_an_error() -> None:
    for start, count in ((7, 2), (8, 1), (0, 9)):
        with pytest.raises(IndexError):
            slots([3, 1], start, count, 4)
    with pytest.raises(IndexError):
        slots([], 0, 1, 4)


def by_definition(tokens: list[int], size: int) -> list[bytes]:
    keys, before = [], b""
    while len(tokens) >= size:
        block, tokens = tokens[:size], tokens[size:]
        before = hashlib.sha256(before + struct.pack(f"={size}q", *block)).digest()
        keys.append(before)
    return keys


@pytest.mark.exercise("engine.block_table.prefix_keys")
def test_keys_are_those_of_the_definition() -> None:
    tokens = [5, 300, 70_000, 1, 0, 2, 9, 9, 9]
    for size in (1, 2, 3, 4, 9, 10):
        for end in range(len(tokens) + 1):
            assert prefix_keys(tokens[:end], size) == by_definition(tokens[:end], size)
    assert prefix_keys([], 4) == []


@pytest.mark.exercise("engine.block_table.prefix_keys")
def test_equal_keys_mean_equal_beginnings() -> None:
    a = prefix_keys([1, 2, 3, 4, 5, 6], 2)
    assert prefix_keys([1, 2, 3, 4, 9, 6], 2)[:2] == a[:2]
    assert not set(prefix_keys([2, 1, 3, 4, 5, 6], 2)) & set(a)  # later blocks differ as well
    assert len(set(prefix_keys([7, 7, 7, 7], 2))) == 2


@pytest.mark.exercise("engine.block_table.prefix_keys")
def test_known_keys_are_kept_and_continued() -> None:
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    whole = prefix_keys(tokens, 2)
    known = whole[:2]
    assert prefix_keys(tokens, 2, known) == whole
    assert len(known) == 2, "the list that came in was changed"
    marked = [b"a" * 32, b"b" * 32]  # not computed again
    found = prefix_keys(tokens, 2, marked)
    assert found[:2] == marked
    assert found[2] == hashlib.sha256(b"b" * 32 + struct.pack("=2q", 5, 9)).digest()
    same = prefix_keys(tokens, 2, whole)
    assert same == whole
    assert same is not whole


@pytest.mark.exercise("engine.block_table.BlockPool.allocate")
def test_blocks_go_in_the_order_in_which_they_were_freed() -> None:
    pool = BlockPool(4, 2)
    assert [pool.allocate() for _ in range(4)] == [0, 1, 2, 3]
    assert pool.references == [1, 1, 1, 1]
    for block in (2, 0, 3):
        pool.release(block)
    assert [pool.allocate() for _ in range(2)] == [2, 0]
    pool.release(1)
    assert [pool.allocate() for _ in range(2)] == [3, 1]
    assert not pool.free
    assert pool.references == [1, 1, 1, 1]


@pytest.mark.exercise("engine.block_table.BlockPool.allocate")
def test_a_full_pool_says_so_and_stays_as_it_is() -> None:
    pool = BlockPool(1, 2)
    pool.publish(pool.allocate(), b"k")
    with pytest.raises(OutOfBlocks):
        pool.allocate()
    assert pool.references == [1]
    assert (pool.block_of, pool.key_of) == ({b"k": 0}, {0: b"k"})


@pytest.mark.exercise("engine.block_table.BlockPool.allocate")
def test_a_block_that_is_taken_loses_its_key() -> None:
    pool = BlockPool(2, 2)
    first, second = pool.allocate(), pool.allocate()
    pool.publish(first, b"one")
    pool.publish(second, b"two")
    pool.release(first)
    assert pool.allocate() == first
    assert pool.block_of == {b"two": second}
    assert pool.key_of == {second: b"two"}
    assert pool.share(b"one") is None


def test_a_freed_block_can_be_taken_up_again() -> None:
    pool = BlockPool(3, 2)
    block = pool.allocate()
    pool.publish(block, b"k")
    pool.release(block)
    assert pool.share(b"k") == block
    assert block not in pool.free
    assert pool.share(b"k") == block
    pool.release(block)
    assert block not in pool.free
    pool.release(block)
    assert list(pool.free) == [1, 2, 0]


def test_the_first_block_with_a_key_stays_the_one() -> None:
    pool = BlockPool(3, 2)
    a, b = pool.allocate(), pool.allocate()
    pool.publish(a, b"k")
    pool.publish(b, b"k")
    pool.publish(a, b"other")
    assert pool.block_of == {b"k": a}
    assert pool.key_of == {a: b"k"}


def test_no_block_is_lost_in_ten_thousand_random_events() -> None:
    """After each: every block is either free or used as often as tables name it."""
    draw, pool, tables = random.Random(0), BlockPool(9, 2), list[list[int]]()
    for _ in range(10_000):
        if draw.random() < 0.5 and pool.free:
            key = bytes([draw.randrange(12)])
            shared = pool.share(key)
            block = pool.allocate() if shared is None else shared
            pool.publish(block, key)
            tables.append([block])
        elif tables:
            for block in tables.pop(draw.randrange(len(tables))):
                pool.release(block)
        used = [block for table in tables for block in table]
        assert pool.references == [used.count(block) for block in range(9)]
        assert set(pool.free) == set(range(9)) - set(used)
        assert {b: k for k, b in pool.block_of.items()} == pool.key_of
