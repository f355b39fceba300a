"""What kwm eval printed of a text read as streams: curves over time and calibration, and their picture."""

import os

import numpy as np

from kwm_panel import COLORS, DASHES, Panel, figure_of


class ReadingError(Exception):
    pass


class Reading:
    """One evaluation: curves {method: time, surprisal, entropy}, bins {method: tokens, sure, right}, numbers by name."""

    def __init__(self, path, methods=()):
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.curves, self.bins, self.facts = {}, {}, {}
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    self.take(line.rstrip("\n").split("\t"))
        except (OSError, UnicodeDecodeError) as error:
            raise ReadingError("%s: wanted what kwm eval printed, found %s" % (path, error)) from error
        except ValueError as error:
            raise ReadingError("%s: wanted numbers in lines of curve and bin, found %s" % (path, error)) from error
        if not self.curves:
            raise ReadingError("%s: wanted lines of curve (kwm eval ... correction.curve=true), found none" % path)
        for method in methods:
            if method not in self.curves:
                raise ReadingError("%s: wanted method %s, found %s" % (path, method, ", ".join(self.curves)))
        if methods:
            self.curves = {method: self.curves[method] for method in methods}
        self.curves = {method: np.array(rows).T for method, rows in self.curves.items()}
        self.bins = {method: np.array(rows).T for method, rows in self.bins.items() if method in self.curves}

    def take(self, row):
        if row[0] in ("curve", "bin") and len(row) == 5:
            rows = self.curves if row[0] == "curve" else self.bins
            rows.setdefault(row[1], []).append([float(value) for value in row[2:]])
        elif len(row) == 2:
            self.facts[row[0]] = row[1]

    def changes(self):
        """Times at which the shift goes on or off, and at which a topic begins."""
        ends = self.facts.get("shift_schedule", "").replace(",", " ").replace("-", " ").split()
        starts = [float(value) for name, value in self.facts.items() if name.startswith("domain") and name.endswith("_start")]
        return [float(end) for end in ends], [start for start in starts if start > 0]


def smooth(values, width):
    """Means of the last `width` values."""
    sums = np.cumsum(np.concatenate([[0], values]))
    at = np.arange(1, len(values) + 1)
    return (sums[at] - sums[np.maximum(at - width, 0)]) / np.minimum(at, width)


class Timed(Panel):
    """A panel over time with changes marked."""

    marks = ((), ())

    def draw(self, axes):
        super().draw(axes)
        for times, style in zip(self.marks, ("-", ":")):
            for time in times:
                axes.axvline(time, color="0.35", lw=0.9, ls=style, zorder=0)


def picture(readings, window=0):
    label = "tokens of every stream"
    time = Timed("Perplexity over time", "perplexity", label, log=True)
    surprise = Timed("Surprise beyond the entropy", "surprisal - entropy, nats", label, rule=0)
    sure = Panel("Calibration", "how often it is right", "largest probability")
    time.marks = surprise.marks = readings[0].changes()
    at = 0
    for reading in readings:
        for method, (times, surprisal, entropy) in reading.curves.items():
            name = method if len(readings) == 1 else "%s, %s" % (reading.name, method)
            width = max(1, int(window / (times[1] - times[0]))) if window and len(times) > 1 else 1
            style = {"color": COLORS[at % len(COLORS)], "ls": DASHES[at // len(COLORS) % len(DASHES)]}
            time.line(times, np.exp(smooth(surprisal, width)), name, **style)
            if np.any(entropy > 0):
                surprise.line(times, smooth(surprisal - entropy, width), name, **style)
            if method in reading.bins:
                tokens, largest, right = reading.bins[method]
                sure.line(largest[tokens >= 20], right[tokens >= 20], name, **style)
            at += 1
    if sure.lines:
        sure.line([0, 1], [0, 1], "calibrated", color="0.6", ls=":")
    return figure_of([time, surprise, sure], columns=1, height=3)
