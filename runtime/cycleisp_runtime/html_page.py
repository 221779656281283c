"""One HTML file that a browser shows without any other: nothing is fetched, nothing is sent."""

from __future__ import annotations

import base64
import hashlib
from html import escape

__all__ = ["html_page"]

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #24292f; --quiet: #656d76;
  --edge: #d8dee4 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181d; --ink: #dde3ea; --quiet: #98a1ab; --edge: #3a414b }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--paper); color: var(--ink) }
h1, h2 { line-height: 1.2; margin: 2rem 0 .5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--edge); text-align: right }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600 }
.quiet { color: var(--quiet) }
svg.chart { max-width: 100%; height: auto }
"""


def html_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole document in UTF-8 that follows the light or dark theme of whoever looks.

    Its Content-Security-Policy (level 3) forbids every resource but pictures in data URIs, styles
    in the page and the one script, named by its hash.

    Args:
        title: plain text, for the window and the first heading.
        body: HTML, in which everything from elsewhere is escaped already.
        style: CSS added to the page's own.
        script: JavaScript that runs after the body is there.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
<script>{script}</script>
</body>
</html>
"""
