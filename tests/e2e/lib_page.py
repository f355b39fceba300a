"""What the tests of analysis/ share: its scripts called, and the pages that they make read."""
import base64
import html.parser
import io
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree

from matplotlib import image

import lib_kwm as t

ANALYSIS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "analysis")
SECTIONS = ["result", "learning", "consistency", "covariance", "gain", "configuration", "provenance"]
sys.path.insert(0, ANALYSIS)


class Page(html.parser.HTMLParser):
    """Sections, images, numbers and words of a page."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.images, self.numbers, self.links, self.words = [], [], [], [], ""
        self.number, self.hidden, self.scores = None, False, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.hidden = tag == "style"
        if tag == "section":
            self.sections.append(found["id"])
        if tag == "img":
            self.images.append((found["alt"], found["src"]))
        if "data-score" in found:
            self.scores.append((found["data-score"], float(found["data-mean"])))
        if "data-name" in found:
            self.number = found
        self.links += [found[name] for name in ("href", "src") if name in found and not found[name].startswith("data:")]

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if self.hidden:
            return
        self.words += data
        if self.number is not None:
            self.numbers.append((self.number["data-name"], self.number["data-value"], data))
            self.number = None

    def titles(self):
        return [title for title, _ in self.images]


def called(name, *words):
    return subprocess.run([os.path.join(ANALYSIS, name), *words], capture_output=True, text=True, timeout=t.PATIENCE)


def decoded(source):
    """An image of data: its width, after reading all of it."""
    head, _, data = source.partition(",")
    raw = base64.b64decode(data, validate=True)
    if head == "data:image/png;base64":
        return image.imread(io.BytesIO(raw)).shape[1]
    root = xml.etree.ElementTree.fromstring(raw)
    outside = [v for e in root.iter() for n, v in e.attrib.items() if n.endswith("href") and not v.startswith(("#", "data:"))]
    t.check(not outside, "picture: wanted nothing from elsewhere, found %s" % outside)
    return float(root.attrib["width"].rstrip("pt")) if head == "data:image/svg+xml;base64" else 0


def page(words, runs, *options, name="report", sections=SECTIONS):
    """The page of a report that has to succeed, with what every page must hold."""
    output = t.path("report.html")
    child = called(name, *runs, "--output", output, *options)
    if not t.check(
        child.returncode == 0 and not child.stderr, "%s: wanted exit 0, found %s:\n%s" % (words, child.returncode, child.stderr)
    ):
        return Page("")
    with open(output, encoding="utf-8") as file:
        text = file.read()
    found = Page(text)
    t.check(found.sections == sections, "%s: wanted every section, found %s" % (words, found.sections))
    t.check("http" not in text, "%s: wanted nothing from elsewhere" % words)
    t.check(all(link.startswith("#") for link in found.links), "%s: wanted links inside, found %s" % (words, found.links))
    t.check(all(decoded(source) > 100 for _, source in found.images), "%s: wanted images that can be read" % words)
    return found


def has(words, found, *titles):
    missing = [title for title in titles if title not in found.titles()]
    t.check(not missing, "%s: wanted plots %s, found %s" % (words, missing, found.titles()))


def refused(code, words, *arguments, name="report"):
    child = called(name, *arguments)
    lines = child.stderr.splitlines()
    one = len(lines) == 1 and lines[0].startswith("analysis/%s: error: " % name) and words in lines[0]
    t.check(child.returncode == code and one, "%s: wanted exit %d, found %s:\n%s" % (words, code, child.returncode, child.stderr))


def copy(run, name):
    return shutil.copytree(run, t.path(name))


PLAIN = [
    "Learning curves",
    "Step sizes",
    "Speed",
    "Is the filter as sure as it may be?",
    "Scores",
    "Calibration and skipped steps",
]
PLAIN += ["Autocorrelation of the surprisal", "Uncertainty left", "Where learning happens", "Share of gain per block"]
SPECTRA = ["Spectrum of recurrence", "Spectrum of hidden", "Spectrum of output", "How much is known", "Spectrum over time"]
