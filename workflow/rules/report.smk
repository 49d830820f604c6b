# tables -> report -------------------------------------------------------------


rule report:
    input:
        CASES,
    output:
        page=report(REPORT, caption="../report/page.rst", category="Report"),
        figures=[
            report(
                f"{RESULTS}/report/figures/{name}",
                caption="../report/figure.rst",
                category="Figures",
                labels={"figure": Path(name).stem},
            )
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
    script:
        "../scripts/report.py"


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
        out=lambda wildcards, output: output[0],
    message:
        "verdict"
    script:
        "../scripts/gate.py"
