# file input and output -----------------------------------------------------------------------


use rule batch as storage_batch with:
    wildcard_constraints:
        batch=r"storage-[a-z0-9.-]+",
