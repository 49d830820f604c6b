# tables -> report -------------------------------------------------------------


rule report:
    input:
        CASES,
    output:
        page=report(REPORT, category="Report"),
        figures=[
            report(f"{RESULTS}/report/figures/{name}", category="Figures")
            for name in figure_files()
        ],
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        "../envs/aifbench.yaml"
    params:
        results=lambda wildcards, output: Path(output.page).parents[1],
    message:
        "write the report"
    shell:
        "python -m aifbench report {params.results:q} > {log:q} 2>&1"


# Fails, with the report already there, unless every planned case is valid.
rule gate:
    input:
        REPORT,
    output:
        GATE,
    log:
        f"{RESULTS}/logs/gate.log",
    localrule: True
    conda:
        "../envs/aifbench.yaml"
    params:
        results=lambda wildcards, output: Path(output[0]).parent,
    message:
        "verdict"
    shell:
        "python -m aifbench gate {params.results:q} --out {output:q} 2> {log:q}"
