"""The site: README, docs/, benchmarks and examples by Sphinx. `make docs` builds it; a dead link is an error."""

project = "cetpick"
extensions = ["myst_parser"]
highlight_language = "none"

# The source folder is the repository, so that links work in the site as they do among the files.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "benchmarks/*.md", "examples/*.md"]
exclude_patterns = [".*"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "cetpick"
html_extra_path = ["first_page"]
html_copy_source = False
html_show_copyright = False
