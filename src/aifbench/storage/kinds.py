"""What can be said against a storage measurement's numbers, or beside them."""

from __future__ import annotations

from aifbench.core.notes import Kind

NOTHING_RECORDED = Kind("nothing_recorded", "no {phase} operations were recorded", "There is nothing to compute.")
OPERATIONS_MISSING = Kind(
    "operations_missing",
    "{recorded} of {expected} {phase} operations were recorded",
    "Not all operations of the case were done.",
)
OWN_WORK = Kind(
    "own_work",
    "the client's own work took {share:.0%} of the {phase} time (limit {limit:.0%})",
    "The measuring process was the limit, not the storage.",
    "The measuring process itself was the limit: use fewer clients, or give it more cores.",
)
SOME_OWN_WORK = Kind(
    "some_own_work",
    "the client's own work took {share:.1%} of the {phase} time",
    "Our own path is a part of the result that one can see.",
    worst="share",
)
OFF_THE_PROCESSOR = Kind(
    "off_the_processor",
    "a client was off the processor for {share:.1%} of the {phase} time: the node is busy",
    "Other work had the client's core.",
    worst="share",
)
APART = Kind(
    "apart",
    "clients started to {phase} {skew_ms:.1f} ms apart",
    "At the beginning not all clients were at work.",
    worst="skew_ms",
)
CORRUPT = Kind(
    "corrupt",
    "verification failed: {blocks} block(s) differ from what was written; {first}",
    "What was read is not what was written. `first` is the first difference.",
    "What was read is not what was written: do not trust this file system until it is known why.",
)
NOT_ALL_VERIFIED = Kind(
    "not_all_verified",
    "verification compared {compared} of {expected} blocks",
    "Not everything that was read was compared with what was written.",
    "What was read is not what was written: do not trust this file system until it is known why.",
)
NO_STRIPES_HERE = Kind(
    "no_stripes_here",
    "stripe_count {asked} has no meaning on {file_system} and was left out",
    "Only Lustre spreads a file over targets.",
)
STRIPES_UNKNOWN = Kind(
    "stripes_unknown",
    "asked for {asked} stripes; how many the files have cannot be read",
    "Whether the files are laid out as asked is not known.",
)
OTHER_STRIPES = Kind(
    "other_stripes",
    "asked for {asked} stripes of {asked_bytes:size}, the files have {stripes} of {stripe_bytes:size}",
    "The file system did not lay out the files as asked.",
)
STRIPES = Kind(
    "stripes",
    "{stripes} stripes of {stripe_bytes:size}",
    "How the files are laid out, as their first one tells.",
)
IN_MEMORY = Kind(
    "in_memory",
    "{file_system} is memory: nothing here says anything about storage",
    "The file system has no device.",
)
OVERLAY = Kind(
    "overlay",
    "overlay: figures are those of its upper layer, with the cost of the overlay",
    "The file system of a container stands between the client and the device.",
)
VIRTUAL_DISK = Kind(
    "virtual_disk",
    "virtual disk {device}: its host may have answered from memory",
    "The host of a virtual machine caches its disks.",
)
NO_DIRECTORY_SYNC = Kind(
    "no_directory_sync",
    "the file system cannot sync a directory: the files' names may not be durable",
    "The write time ends before the names of the files are safe.",
)
NO_HUGE_PAGES = Kind(
    "no_huge_pages",
    "the kernel gave no huge pages to a client's buffer",
    "Direct I/O with small pages costs more work per byte.",
)
