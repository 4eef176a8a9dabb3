"""How Sphinx builds these pages. Warnings are errors, and a page that loads anything from elsewhere is one."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the code of this checkout, installed or not

project = "modelnet-cache"
version = release = metadata.version(project)
html_title = f"{project} {version}"
html_show_copyright = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "docs.generated",
]
exclude_patterns = ["images", "static"]
smartquotes = False  # --option would become –option
default_role = "code"  # of `names` in docstrings

html_theme = "furo"  # its fonts are the reader's own
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
