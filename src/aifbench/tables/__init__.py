"""Records in, tables and verdict out."""
