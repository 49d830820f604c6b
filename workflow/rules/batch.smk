# specs -> records: the one rule of all batches. The rule file of each benchmark makes its own from it.


rule batch:
    input:
        get_needs,
        spec=get_spec,
    output:
        DONE,
    log:
        LOG,
    wildcard_constraints:
        # No batch is this rule's own: those made from it say which are theirs.
        batch=r"(?!)",
    conda:
        # Whole, for the rule file of another package.
        f"{workflow.basedir}/envs/aifbench.yaml"
    envmodules:
        *SYSTEM.modules,
    threads: get_cores
    resources:
        runtime=get_job("minutes"),
        mem_mb=get_job("memory_mib"),
        nodes=get_job("nodes"),
        tasks=get_job("tasks"),
        gpu=get_job("gpus"),
        slurm_account=get_job("account"),
        slurm_partition=get_job("partition"),
        qos=get_job("qos"),
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
    message:
        "measure {wildcards.batch}"
    shell:
        "python -m aifbench run --spec {input.spec:q}"
        " --out {params.folder:q} --done {output:q} --log {log:q}"
