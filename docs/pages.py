"""A hook of MkDocs: the pages of the site are the repository's files at their own places, with the same links."""

from itertools import chain
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

OUTSIDE = (
    *("*.md", "*.cff", "LICENSE", "containers/*.yaml", "deploy/*.md", "tests/slurm/*.md"),
    *("config/**/*.md", "config/**/*.yaml", "tests/fixtures/toy_benchmark/pyproject.toml"),
)
"""What the documents link to outside of docs/."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the pages of docs/ below `docs/`, and those of other folders beside them."""
    root = Path(config.config_file_path).parent
    own = [file for file in files if file.src_dir == config.docs_dir]
    places = [Path(config.docs_dir, file.src_uri) for file in own]
    for file in own:
        files.remove(file)
    for path in chain(places, *(root.glob(pattern) for pattern in OUTSIDE)):
        files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files
