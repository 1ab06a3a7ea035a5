"""The end of the live segment: where the next frame goes.

Must never leave half a frame behind that a later one is written after.
"""

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

# Zeros written ahead of the frames that will replace them.
AHEAD_BYTES: Final = 1024 * 1024
_ZEROS: Final = bytes(AHEAD_BYTES)
# Where blocks that were written once can be written again without asking for room. On the others,
# which copy on write (xfs does after a copy by reference), a full disk would end the process with
# SIGBUS.
_OVERWRITES_IN_PLACE: Final = frozenset({"ext2", "ext3", "ext4", "tmpfs"})
MOUNTS: Final = Path("/proc/self/mountinfo")
# Linux 5.14; Python has no name for it. Takes the page faults of a whole step at once.
_POPULATE_WRITE: Final = 23


class TailStuck(OSError):
    """What was written could not be taken back; nothing may be written after it."""


class Tail:
    """The open end of one segment.

    A frame costs a system call of its own, or, in memory shared with the file, the copying of its
    bytes: both survive a killed process, and the second takes a fraction of the time.

    Attributes:
        fd: The segment, open for reading and appending.
        offset: First byte after the last whole frame.
    """

    def __init__(
        self, fd: int, offset: int, write: Callable[[int, bytes], int], *, is_mapped: bool
    ) -> None:
        """Take over a segment.

        Args:
            fd: Open with ``O_APPEND``; nothing lies behind ``offset``.
            offset: Where the next frame goes.
            write: Writes to an open file; returns how many bytes went in.
            is_mapped: Whether frames are copied into memory that is shared with the file.
        """
        self.fd = fd
        self.offset = offset
        self._write = write
        self._is_mapped = is_mapped
        # Stands in until the first frame, so that there always is one.
        self._map = mmap.mmap(-1, 1)
        self._map_start = 0
        self._map_end = 0
        self._size = offset

    def append(self, frame: bytes) -> None:
        """Write a frame at the end.

        Args:
            frame: All of it.

        Raises:
            OSError: There is no room, or the disk failed; nothing was written.
            TailStuck: Part of it may be there and cannot be taken back.
        """
        offset = self.offset
        end = offset + len(frame)
        if not self._is_mapped:
            self._lengthen(frame)
        else:
            if end > self._map_end:
                self._map_ahead(end)
            self._map[offset - self._map_start : end - self._map_start] = frame
        self.offset = end

    def unmap(self) -> None:
        """Write with system calls from now on, which tell of a disk that is gone."""
        self.seal()
        self._is_mapped = False

    def seal(self) -> None:
        """Cut off what was written ahead; the descriptor stays open."""
        self._map.close()
        self._map_end = 0
        if self._size > self.offset:
            # Zeros at the end are no frames, so they may stay where they cannot be cut off.
            with suppress(OSError):
                os.ftruncate(self.fd, self.offset)
                self._size = self.offset

    def _map_ahead(self, end: int) -> None:
        """Write zeros ahead and share their memory."""
        while self._size < end:
            self._lengthen(_ZEROS)
        start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        fresh = mmap.mmap(self.fd, self._size - start, offset=start)
        with suppress(OSError):
            fresh.madvise(_POPULATE_WRITE)
        self._map.close()
        self._map, self._map_start, self._map_end = fresh, start, self._size

    def _lengthen(self, content: bytes) -> None:
        try:
            if self._write(self.fd, content) == len(content):
                self._size += len(content)
                return
            trouble = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as failed:
            trouble = failed
        try:
            os.ftruncate(self.fd, self._size)
        except OSError as stuck:
            raise TailStuck(stuck.errno, stuck.strerror) from stuck
        raise trouble


def can_map(directory: Path, mounts: Path = MOUNTS) -> bool:
    """Tell whether segments in a directory may be written through shared memory.

    Args:
        directory: Where the segments are.
        mounts: The kernel's list of mounts.

    Returns:
        True on file systems that write blocks in place; False elsewhere, and where nothing tells.

    Source:
        https://docs.kernel.org/filesystems/proc.html, section 3.5 on mountinfo, 2026-11-23.
    """
    try:
        device = directory.stat().st_dev
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 2 and fields[2] == wanted:
            return after.split(" ", 1)[0] in _OVERWRITES_IN_PLACE
    return False
