"""What people are told and asked about storage."""

from aifbench.core.menu import Menu

MENU = Menu(
    text="How fast files are written, made durable and read back.",
    axis="file_size",
    question="File size (such as 64MiB, or several: 4MiB,1GiB)",
    unit="blocks",
    shown=("file_size",),
)
