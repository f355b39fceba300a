"""One self-contained HTML page: its look, pictures inside it, and what the commands that write such pages share."""

import argparse
import base64
import html
import io
import os
import sys

from kwm_runs import Run, RunError

STYLE = """
body { max-width: 760px; margin: 1.5em auto; padding: 0 16px; background: #fff; color: #1a1a1a;
       font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 1.5em; margin-bottom: 0.2em; overflow-wrap: anywhere; }
h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #888; }
nav a { margin-right: 1em; }
a { color: #00518a; }
table { border-collapse: collapse; width: 100%; font-size: 0.88em; }
th, td { text-align: left; vertical-align: top; padding: 3px 10px 3px 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: 1.2em 0; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figcaption, .note { font-size: 0.88em; color: #444; }
pre { font-size: 0.82em; background: #f5f5f5; padding: 0.8em; overflow-x: auto; }
code { font-size: 0.92em; }
td:first-child { white-space: nowrap; }
"""


def text(value):
    return html.escape(str(value))


def image(figure, title, raster):
    """SVG for lines, PNG for heat maps, as data inside the page."""
    import matplotlib.pyplot as plt  # takes a second that an error need not wait for

    file = io.BytesIO()
    if raster:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
        kind = "png"
    else:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        kind = "svg+xml"
    plt.close(figure)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{text(title)}" src="data:image/{kind};base64,{data}">'


def picture(figure, title, caption, raster=False):
    """A figure with its caption; of none, the title and why."""
    if figure is None:
        return ""
    end = "" if title.endswith("?") else "."
    return f"<figure>{image(figure, title, raster)}<figcaption><b>{text(title)}{end}</b> {caption}</figcaption></figure>\n"


def note(words):
    return f'<p class="note">{words}</p>\n'


def page_of(title, sections):
    """sections: (id, words, HTML)."""
    links = " ".join(f'<a href="#{name}">{words}</a>' for name, words, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{words}</h2>\n{inside}</section>\n' for name, words, inside in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>KWM: {text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>KWM: {text(title)}</h1>\n<nav>{links}</nav>\n{body}</body></html>\n"
    )


# ---- commands


def write(path, page):
    part = path + ".part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(part, path)
    except OSError as error:
        fail(1, f"{path}: wanted a file to write, found: {error.strerror}")


def fail(code, words):
    print(f"analysis/{os.path.basename(sys.argv[0])}: error: {words}", file=sys.stderr)
    sys.exit(code)


class Parser(argparse.ArgumentParser):
    """With one line for an error; `usage` is that line's end."""

    def error(self, message):
        fail(2, f"{message}; usage: {self.usage}")


def names_of(folders):
    """The last part of each path, or as many as tell them apart."""
    paths = [os.path.abspath(folder).split(os.sep) for folder in folders]
    for parts in range(1, max(map(len, paths)) + 1):
        names = [os.sep.join(path[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    fail(2, "wanted each run once, found one twice")


def read_runs(folders):
    try:
        return [Run(folder, name) for folder, name in zip(folders, names_of(folders))]
    except RunError as error:
        fail(3, str(error))
