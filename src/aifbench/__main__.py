"""`python -m aifbench` is the same as `aifbench`."""

from aifbench.cli import main

main()
