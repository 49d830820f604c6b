"""The bytes that are written: random, incompressible, and stamped so that any damage can be told."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.storage.params import PAGE

RING_BYTES = 1 << 20
"""Random data that a client prepares in memory and writes again and again with new stamps (at least one block).

So small that it stays in the processor's cache, as the one block of other tools does: written from 64 MiB in 4 KiB
pages, direct throughput fell by a tenth to a quarter. Long enough that file systems which compress find no repetition
within one record.
"""

_OFFSET_BITS = 48
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
_FILL_WORDS = 1 << 17


def ring_bytes(block_size: int, blocks: int) -> int:
    """Return the memory in bytes that a `BlockSource` needs for `blocks` blocks."""
    slot = _slot_bytes(block_size)
    return slot * max(1, min(blocks, RING_BYTES // slot))


class BlockSource:
    """A ring of random blocks in `memory` (uint8, whole slots of page-rounded blocks).

    Each page of a block carries one u64 stamp: 16 bits of a hash of (seed, client), 48 bits of the byte offset in the
    file. So blocks differ from each other, from other clients' and from those of an earlier seed.
    """

    def __init__(self, memory: NDArray[np.uint8], block_size: int, seed: int, client: int) -> None:
        self._slot = _slot_bytes(block_size)
        self.slots = memory.size // self._slot
        words = memory[: self.slots * self._slot].view(np.uint64)
        random = np.random.SFC64([seed, client])
        for start in range(0, words.size, _FILL_WORDS):
            part = words[start : start + _FILL_WORDS]
            part[:] = random.random_raw(part.size)
        rows = words.reshape(self.slots, -1)
        self._stamps = [row[:: PAGE // 8] for row in rows]
        digest = hashlib.blake2b(f"{seed}/{client}".encode(), digest_size=2).digest()
        self._tag = int.from_bytes(digest, "little") << _OFFSET_BITS
        self._single = self._slot == PAGE
        self._template = np.arange(0, self._slot, PAGE, dtype=np.uint64) + np.uint64(self._tag)
        self.blocks = [row.view(np.uint8)[:block_size] for row in rows]

    def stamp(self, index: int, offset: int) -> None:
        """Stamp the slot of the `index`-th operation for a block at `offset` of the file."""
        stamps = self._stamps[index % self.slots]
        if self._single:
            stamps[0] = self._tag + offset  # a third of the time of the general case, which small blocks would feel
        else:
            np.add(self._template, np.uint64(offset), out=stamps)

    def block(self, index: int) -> NDArray[np.uint8]:
        """Return the memory of the `index`-th operation's block."""
        return self.blocks[index % self.slots]

    def problem(self, index: int, offset: int, block: NDArray[np.uint8]) -> str | None:
        """Compare all bytes of a block read from `offset` with what operation `index` wrote there.

        Returns None, or one line that says what is wrong. Changes the slot's stamps.
        """
        self.stamp(index, offset)
        expected = self.block(index)
        if np.array_equal(block, expected):
            return None
        for page in range(0, expected.size - 7, PAGE):
            stamp = int.from_bytes(block[page : page + 8].tobytes(), "little")
            if stamp == int.from_bytes(expected[page : page + 8].tobytes(), "little"):
                continue
            if stamp & ~_OFFSET_MASK == self._tag:
                return f"offset {offset + page} holds the data of offset {stamp & _OFFSET_MASK}"
            if not block[page : page + PAGE].any():
                return f"offset {offset + page} holds zeros"
            return f"offset {offset + page} holds foreign or damaged data"
        first = int(np.flatnonzero(block != expected)[0])
        return f"byte {offset + first} differs"


def verification(blocks: int, problems: list[str]) -> dict[str, Any]:
    """Return the facts about a verification: blocks compared, blocks that differ, the first problem."""
    return {"blocks": blocks, "bad_blocks": len(problems), "first_problem": problems[0] if problems else None}


def _slot_bytes(block_size: int) -> int:
    return -(-block_size // PAGE) * PAGE
