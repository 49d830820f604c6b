# specs -> records: file input and output ------------------------------------------------


rule storage_batch:
    input:
        SPEC,
    output:
        DONE,
    log:
        LOG,
    wildcard_constraints:
        batch=r"storage-[a-z0-9.-]+",
    conda:
        "../envs/aifbench.yaml"
    # Measurements do not share a machine: a batch takes all cores that the workflow has.
    threads: workflow.cores or 1
    resources:
        runtime=get_minutes,
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
    message:
        "measure {wildcards.batch}"
    shell:
        "python -m aifbench run --spec {input}"
        " --out {params.folder} --done {output} --log {log}"
