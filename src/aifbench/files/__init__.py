"""Files that others read, or may have written: found without links, read within bounds, followed, written whole."""
