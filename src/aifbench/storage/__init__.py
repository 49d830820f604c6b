"""File I/O: how long it takes to write a file durably and to read it back, with proof of where the bytes came from."""
