"""The allocators between an ONNX Runtime session and the operating system, simulated on sizes alone.

Each is a reimplementation of a documented algorithm, with the names of the original's parameters:
`Pattern` of ONNX Runtime's memory pattern planner, `Arena` of its best-fit-with-coalescing arena (after
TensorFlow's), `Heap` of malloc in the GNU C library.  Only resident memory counts: an arena's region or a
fresh mapping costs nothing until it is written to.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import count

__all__ = ["Arena", "Heap", "Pages", "Pattern"]

MIB = 1 << 20


class Pages:
    """A set of addresses, as disjoint intervals: the memory that was written to."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def add(self, start: int, end: int) -> None:
        """Adds [start, end)."""
        if end <= start:
            return
        low, high = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if low < high:
            if self._starts[low] <= start and end <= self._ends[low]:
                return  # written to before
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._replace(low, high, [(start, end)])

    def remove(self, start: int, end: int) -> None:
        """Takes [start, end) out."""
        if end <= start:
            return
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if low >= high:
            return
        rest = [(self._starts[low], start), (end, self._ends[high - 1])]
        self._replace(low, high, [(a, b) for a, b in rest if a < b])

    def _replace(self, low: int, high: int, intervals: list[tuple[int, int]]) -> None:
        self.total -= sum(self._ends[low:high]) - sum(self._starts[low:high])
        self.total += sum(b - a for a, b in intervals)
        self._starts[low:high] = [a for a, _ in intervals]
        self._ends[low:high] = [b for _, b in intervals]


class _Gaps:
    """Free stretches of a line of addresses: found by best fit, merged with neighbours that they touch."""

    def __init__(self) -> None:
        self._sorted: list[tuple[int, int]] = []
        self._at: dict[int, int] = {}
        self._until: dict[int, int] = {}

    @property
    def largest(self) -> int:
        """The length of the longest stretch."""
        return self._sorted[-1][0] if self._sorted else 0

    def put(self, start: int, length: int) -> None:
        """Adds a stretch that touches no other."""
        insort(self._sorted, (length, start))
        self._at[start], self._until[start + length] = length, length

    def take(self, length: int) -> tuple[int, int] | None:
        """Removes the smallest stretch that is long enough, the first of equal ones: its start and length."""
        at = bisect_left(self._sorted, (length, 0))
        if at == len(self._sorted):
            return None
        found, start = self._sorted[at]
        self._drop(start, found)
        return start, found

    def merge(self, start: int, length: int) -> tuple[int, int]:
        """A stretch together with the neighbours that it touches, which are removed."""
        if (after := self._at.get(start + length)) is not None:
            self._drop(start + length, after)
            length += after
        if (before := self._until.get(start)) is not None:
            self._drop(start - before, before)
            start, length = start - before, length + before
        return start, length

    def _drop(self, start: int, length: int) -> None:
        del self._sorted[bisect_left(self._sorted, (length, start))]
        del self._at[start], self._until[start + length]


class Pattern:
    """Offsets into one block for all tensors of a run whose sizes are known: first traced, then reused."""

    def __init__(self) -> None:
        self._gaps = _Gaps()
        self._placed: dict[int, tuple[int, int]] = {}
        self._end = self.size = 0

    def alloc(self, key: int, size: int) -> None:
        """Places `key` in the gap that it fits best, or behind everything."""
        if (gap := self._gaps.take(size)) is None:
            offset, self._end = self._end, self._end + size
        else:
            offset, length = gap
            if length > size:
                self._gaps.put(offset + size, length - size)
        self._placed[key] = (offset, size)
        self.size = max(self.size, self._end)

    def free(self, key: int) -> None:
        """Opens the gap of `key`."""
        start, length = self._gaps.merge(*self._placed.pop(key))
        if start + length == self._end:
            self._end = start
        else:
            self._gaps.put(start, length)


class Heap:
    """malloc: the best fit in a heap that only ends shrink; a large block that fits nowhere is a mapping.

    What a program frees inside the heap stays resident; that is why loading a model leaves more behind than
    its weights.  An aligned block is cut out of a larger one, and the cut before it is where a program's next
    small object goes.

    Attributes:
        between: bytes of small objects that a program puts behind each block when the heap grows, for good.
        owned: whether each aligned block has a small object of its own, in the cut before it.
        kept: whether objects that stay are put into the cuts on both sides of an aligned block, so that the
            place of one that is freed is too small for the next aligned one of its size.

    Args:
        threshold: a request of so many bytes that fits nowhere in the heap is mapped.  When a larger
            mapping is freed, the threshold becomes its size.
    """

    MMAP_THRESHOLD = 128 * 1024
    MMAP_THRESHOLD_MAX = 32 * MIB
    TOP_PAD = 128 * 1024
    HEADER = 16
    SMALLEST = 32
    PAGE = 4096
    MAPPED = 1 << 50
    TRIMS = 64 * 1024
    SMALL = 48

    def __init__(self, threshold: int = MMAP_THRESHOLD) -> None:
        self.pages, self.files = Pages(), Pages()
        self.peak = self.private_peak = 0
        self.between = 0
        self.owned = self.kept = False
        self._threshold = threshold
        self._top = self._break = 0
        self._used: dict[int, int] = {}
        self._gaps = _Gaps()
        self._from_file: set[int] = set()
        # as the kernel does it, each new mapping stands below the one before
        self._maps = count(self.MAPPED << 30, -self.MAPPED)

    @property
    def resident(self) -> int:
        """Bytes written to and not given back, and those read from mapped files."""
        return self.pages.total + self.files.total

    def alloc(self, size: int, *, align: int = 0, touch: bool = True) -> int:
        """The address of a block; written to at once unless `touch` is off."""
        need = -(-(size + self.HEADER // 2) // self.HEADER) * self.HEADER
        room = need + (align + 2 * self.HEADER if align else 0)
        if room >= self._threshold and room > max(self._gaps.largest, self._break - self._top):
            address = next(self._maps)
            self._used[address] = -(-(need + 2 * self.HEADER) // self.PAGE) * self.PAGE
        elif align and (self.kept or self.owned):
            address = self._behind_cut(need, room)
        else:
            address = self._block(need, room)
        if touch:
            self.touch(address, 0, size)
        return address

    def map(self, size: int) -> int:
        """The address of a file's part that is mapped: it counts when it is read."""
        address = next(self._maps)
        self._used[address] = size
        self._from_file.add(address)
        return address

    def touch(self, address: int, start: int, end: int) -> None:
        """Writes to a part of a block."""
        (self.files if address in self._from_file else self.pages).add(address + start, address + end)
        self.peak = max(self.peak, self.resident)
        self.private_peak = max(self.private_peak, self.pages.total)

    def _behind_cut(self, need: int, room: int) -> int:
        """An aligned block behind a cut that an object takes; the cut after it is free, or taken, too."""
        start = self._block(room, room)
        length = self._used.pop(start)
        address, rest = start + self.SMALL, length - self.SMALL - need
        self._used[address] = need
        if not self.kept and rest > 0:
            self._merge(address + need, rest)
        return address

    def _block(self, need: int, room: int) -> int:
        """A block of `need` bytes from a gap of at least `room`, or from the end of the heap."""
        if (gap := self._gaps.take(room)) is not None:
            address, length = gap
            if length - need >= self.SMALLEST:
                self._gaps.put(address + need, length - need)
            else:
                need = length
        else:
            address = self._top
            self._top += need + self.between
            if self._top > self._break:
                self._break = self._top + self.TOP_PAD
            self.pages.add(address + need, self._top)
        self._used[address] = need
        return address

    def free(self, address: int) -> None:
        """Gives a block back: a mapping to the system, anything else to the heap."""
        length = self._used.pop(address)
        if address >= self.MAPPED:
            (self.files if address in self._from_file else self.pages).remove(address, address + length)
            if self._threshold < length <= self.MMAP_THRESHOLD_MAX:
                self._threshold = length
            return
        if self._merge(address, length) >= self.TRIMS:
            self._trim()

    def _merge(self, address: int, length: int) -> int:
        """Opens a gap, or lowers the end of the heap; the length that is free there now."""
        address, length = self._gaps.merge(address, length)
        if address + length < self._top:
            self._gaps.put(address, length)
        else:
            self._top = address
        return length

    def _trim(self) -> None:
        if self._break - self._top > 2 * self._threshold:
            self.pages.remove(self._top + self.TOP_PAD, self._break)
            self._break = self._top + self.TOP_PAD


class Arena:
    """Regions that double in size up to 1 GiB, cut into chunks: the best fit is taken, neighbours merge.

    A chunk is only cut when it is twice as large as asked for, or leaves `MAX_DEAD` bytes over.
    """

    UNIT = 256
    ENTRY = 8
    FIRST, LARGEST = 1 * MIB, 1024 * MIB
    MAX_DEAD = 128 * MIB

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self._next_region = self.FIRST
        self._used: dict[int, tuple[int, int]] = {}
        self._free: list[tuple[int, int]] = []
        self._next: dict[int, int | None] = {}
        self._previous: dict[int, int | None] = {}
        self._size: dict[int, int] = {}
        self._region: dict[int, int] = {}
        self.held = self.in_use = 0

    def alloc(self, size: int) -> int:
        """The address of a chunk, written to as far as was asked for."""
        need = -(-size // self.UNIT) * self.UNIT
        address = self._find(need)
        if address is None:
            self._extend(need)
            address = self._find(need)
            assert address is not None
        self._remove(address)
        length = self._size[address]
        if length >= 2 * need or length - need >= self.MAX_DEAD:
            self._split(address, need)
            length = need
        self._used[address] = (length, size)
        self.in_use += length
        region = self._region[address]
        self._heap.touch(region, address - region, address - region + size)
        return address

    def _find(self, need: int) -> int | None:
        # bins hold sizes between powers of two, each in order of size: the smallest that fits comes first
        at = bisect_left(self._free, (need, 0))
        return self._free[at][1] if at < len(self._free) else None

    def _extend(self, need: int) -> None:
        grown = need > self._next_region
        while need > self._next_region:
            self._next_region *= 2
        length = self._next_region
        if not grown:
            self._next_region = max(self._next_region, min(2 * self._next_region, self.LARGEST))
        address = self._heap.alloc(length, align=64, touch=False)
        # the table of the region's chunks has an entry for each unit, all written
        self._heap.alloc(length // self.UNIT * self.ENTRY)
        self.held += length
        self._size[address], self._region[address] = length, address
        self._next[address] = self._previous[address] = None
        insort(self._free, (length, address))

    def _split(self, address: int, need: int) -> None:
        rest, after = address + need, self._next[address]
        self._size[rest] = self._size[address] - need
        self._size[address] = need
        self._region[rest] = self._region[address]
        self._next[rest], self._previous[rest], self._next[address] = after, address, rest
        if after is not None:
            self._previous[after] = rest
        insort(self._free, (self._size[rest], rest))

    def free(self, address: int) -> None:
        """Gives a chunk back to the arena, which keeps it."""
        length, _ = self._used.pop(address)
        self.in_use -= length
        after = self._next[address]
        if after is not None and after not in self._used:
            self._merge(address, after)
        before = self._previous[address]
        if before is not None and before not in self._used:
            self._remove(before)
            self._join(before, address)
            address = before
        insort(self._free, (self._size[address], address))

    def _merge(self, first: int, second: int) -> None:
        self._remove(second)
        self._join(first, second)

    def _join(self, first: int, second: int) -> None:
        self._size[first] += self._size.pop(second)
        after = self._next.pop(second)
        del self._previous[second], self._region[second]
        self._next[first] = after
        if after is not None:
            self._previous[after] = first

    def _remove(self, address: int) -> None:
        del self._free[bisect_left(self._free, (self._size[address], address))]
