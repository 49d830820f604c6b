# images and models: made once, before any batch needs them ---------------------------------------


rule image:
    output:
        IMAGE,
    log:
        f"{RESULTS}/logs/image-{{image}}.log",
    wildcard_constraints:
        image="aifbench|ollama",
    conda:
        "../envs/aifbench.yaml"
    envmodules:
        *SYSTEM.modules,
    resources:
        runtime=60,
        mem_mb=get_service("memory_mib"),
        slurm_account=get_service("account"),
        slurm_partition=get_service("partition"),
        qos=get_service("qos"),
    params:
        config=get_config_arguments,
    message:
        "make the image {wildcards.image}"
    shell:
        "python -m aifbench image {wildcards.image:q} {params.config:q} --out {output:q}"
        " > {log:q} 2>&1"


rule model:
    input:
        lambda wildcards: (
            [get_image("ollama")] if SYSTEM.container == "apptainer" else []
        ),
    output:
        MODEL,
    log:
        f"{RESULTS}/logs/model-{{model}}.log",
    conda:
        "../envs/aifbench.yaml"
    envmodules:
        *SYSTEM.modules,
    resources:
        runtime=120,
        mem_mb=get_service("memory_mib"),
        slurm_account=get_service("account"),
        slurm_partition=get_service("partition"),
        qos=get_service("qos"),
    params:
        config=get_config_arguments,
        model=get_model_arguments,
    message:
        "put the model {wildcards.model} into its folder"
    shell:
        "python -m aifbench model {params.model:q} {params.config:q} > {log:q} 2>&1"
