"""Build the documentation as a site with Sphinx: `make docs-site`.

The source folder is the root of the repository, so that a link between two files works on the site as it does in a clone.
docs/toc.yml lists the pages.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "mla_serve"
author = "the mla_serve contributors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
extensions = ["myst_parser", "sphinx_external_toc"]
external_toc_path = "docs/toc.yml"
external_toc_exclude_missing = True
include_patterns = ["*.md", "docs/**", "benchmarks/**"]
myst_heading_anchors = 3  # GitHub's anchors, which the links use
html_theme = "furo"  # system fonts, no analytics; the search runs in the browser
html_title = f"mla_serve {release}"
html_extra_path = ["site"]  # index.html leads from the root of the site to docs/index.html
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
