# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Settings of the documentation site, which ``make docs`` builds.

The source directory is the repository root, so that READMEs of configs are pages as they stand, and
a link means the same on the site and in the repository.
"""

import os
import re
import runpy
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # autodoc imports the package of this checkout

project = 'mmfeataug'
author = 'mmfeataug contributors'
copyright = author
release = version = runpy.run_path(str(ROOT / 'mmfeataug' / 'version.py'))['__version__']

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
root_doc = 'docs/index'
include_patterns = [
    '*.md',
    'docs/**.md',
    'benchmarks/*/README.md',
    'docs/api/*.rst',
    'configs/README.md',
    'configs/*/README.md',
]

# The anchors of GitHub.
myst_heading_anchors = 4
myst_url_schemes = ['http', 'https', 'mailto', 'source']

templates_path = [str(ROOT / 'docs' / '_templates')]
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_member_order = 'bysource'
toc_object_entries_show_parents = 'hide'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_numpy_docstring = False
napoleon_use_ivar = True

highlight_language = 'text'  # of blocks that name none
html_theme = 'furo'
html_math_renderer = 'mathml'
html_title = f'mmfeataug {release}'
html_static_path = ['_static']
html_css_files = ['wide.css']
html_copy_source = False

# Where links to source files lead: the address of the repository on the web, or else this checkout.
SOURCES = os.environ.get('MMFEATAUG_SOURCES', '')
LINK = re.compile(r'\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)')


def mark_sources(app, docname, content):
    """Mark links to files that are no pages; a folder with a README stands for its README."""
    folder = ROOT / Path(docname).parent

    def mark(match):
        path = Path(os.path.normpath(folder / match[1]))
        if path.is_dir() and (path / 'README.md').is_file():
            return f']({match[1]}/README.md{match[2] or ""})'
        if not path.exists() or path.suffix in ('.md', '.png', '.jpg'):
            return match[0]
        return f'](source:{path.relative_to(ROOT)})'

    content[0] = LINK.sub(mark, content[0])


def link_sources(app, doctree, docname):
    """Replace marked links by addresses."""
    page = Path(app.outdir, docname).parent
    base = SOURCES or os.path.relpath(ROOT, page)
    for node in doctree.findall(nodes.reference):
        path = node.get('refuri', '').removeprefix('source:')
        if path != node.get('refuri', ''):
            node['refuri'] = f'{base.rstrip("/")}/{path}'


def write_formula(writer, node):
    """Write a formula as MathML: browsers draw it without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    writer.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def add_front_page(app, exception):
    """Send visitors of the site's root to its first page."""
    if exception is None:
        page = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        Path(app.outdir, 'index.html').write_text(page)


def setup(app):
    app.add_html_math_renderer('mathml', (write_formula, None), (write_formula, None))
    app.connect('source-read', mark_sources)
    app.connect('doctree-resolved', link_sources)
    app.connect('build-finished', add_front_page)
