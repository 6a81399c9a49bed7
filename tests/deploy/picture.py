"""Draws docs/dashboard.png: the dashboard's panels in their places, from what a real Prometheus answers to their queries.

Grafana isn't needed, and this isn't its screenshot. It lets the real system run for five minutes, with bad IDs, a throttled
phase, an outage and a replica that is replaced. Needs matplotlib: pip install matplotlib, then
PYTHONPATH=tests/deploy python tests/deploy/picture.py docs/dashboard.png
"""

import itertools
import math
import sys
import threading
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyBboxPatch
from PIL import Image

import dashboard
from stage import Stage, wait_for

ROWS_SHOWN = ("Overview", "Throughput", "Batches", "Endpoint", "Latency", "Broker")
WIDTH, DPI, UNIT = 15.0, 100, 0.27
BACK, CARD, TEXT, DIM, GRID = "#111217", "#181b1f", "#d8d9da", "#8e9196", "#2c3235"
COLOURS = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "text": TEXT,
    "transparent": TEXT,
}
CYCLE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ca95e5"]
HEAT = LinearSegmentedColormap.from_list("heat", [CARD, "#1f4b73", "#3f8fc4", "#fade2a", "#ff9830", "#f2495c"])
STEP = 2


def story(stage):
    """Five minutes in which things happen; returns when they began."""
    stop, counter = threading.Event(), itertools.count()

    def load():
        while not stop.wait(1):
            fresh = [f"VI{next(counter):012}" for _ in range(1500)]
            stage.publish(fresh + fresh[:150])

    latency = {"latency": "80ms", "jitter": "80ms"}
    stage.faults(**latency)
    begin = time.time()

    def until(seconds, what=None):
        while (left := begin + seconds - time.time()) > 0:
            time.sleep(min(left, 4))
            if what:
                what()

    publisher = threading.Thread(target=load)
    publisher.start()
    try:
        until(55)
        stage.faults(**latency, bad_prefix="bad")
        until(95, lambda: stage.publish([f"bad{next(counter)}" for _ in range(2)]))
        stage.faults(**latency, requests_per_second=2)
        until(130)
        stage.faults(**latency)
        until(150)
        stage.faults(down="unavailable")
        until(190)
        stage.faults(**latency)
        until(205)
        stage.publish([f"many{number}" for number in range(4000)], per_message=1001)
        until(245)
        stage.stop_worker(0)
        until(255)
        stage.start_worker(0)
        until(300)
    finally:
        stop.set()
        publisher.join()
    return begin


def draw(stage, begin, end, path):
    board = dashboard.read()
    dashboard.VARIABLES.update({"$__rate_interval": "10s", "$__range": f"{int(end - begin)}s"})
    shown, bottom = [], 0
    for panel in board["panels"]:
        if panel["type"] == "row" and panel["title"].split(":")[0] not in ROWS_SHOWN:
            break
        shown.append(panel)
        bottom = max(bottom, panel["gridPos"]["y"] + panel["gridPos"]["h"])
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": TEXT})
    figure = plt.figure(figsize=(WIDTH, bottom * UNIT), dpi=DPI, facecolor=BACK)
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set(xlim=(0, 24), ylim=(bottom, 0))
    sheet.axis("off")
    for panel in shown:
        place(figure, sheet, bottom, panel, stage, begin, end)
    figure.savefig(path, facecolor=BACK)
    # Without the transparency that nobody sees, and with rare colours as they are.
    Image.open(path).convert("RGB").save(path, optimize=True)


def place(figure, sheet, bottom, panel, stage, begin, end):
    at = panel["gridPos"]
    x, y, w, h = at["x"], at["y"], at["w"], at["h"]
    if panel["type"] == "row":
        sheet.text(x + 0.1, y + 0.55, "\u2304  " + panel["title"], fontsize=9.5, weight="bold", va="center")
        return
    fill, stat = CARD, None
    if panel["type"] == "stat":
        stat = stat_of(panel, stage, end)
        if panel["options"]["colorMode"] == "background":
            fill = stat[1]
    box = FancyBboxPatch(
        (x + 0.06, y + 0.1), w - 0.12, h - 0.2, boxstyle="round,pad=0,rounding_size=0.06", fc=fill, ec=GRID, lw=0.6
    )
    sheet.add_patch(box)
    on_colour = fill != CARD
    sheet.text(x + 0.18, y + 0.62, panel["title"], fontsize=8, color="#111217" if on_colour else TEXT, va="center")
    if stat:
        text, colour = stat
        size = min(26 if h >= 5 else 17, 26 * w / (len(text) * 0.36 + 0.5))
        sheet.text(
            x + w / 2,
            y + h / 2 + 0.3,
            text,
            fontsize=size,
            weight="bold",
            ha="center",
            va="center",
            color="#111217" if on_colour else colour,
        )
        return
    left, right = 1.05, 0.95 if "custom.axisPlacement" in str(panel["fieldConfig"]) else 0.3
    axes = figure.add_axes(
        ((x + left) / 24, 1 - (y + h - 1.75) / bottom, (w - left - right) / 24, (h - 2.95) / bottom), facecolor="none"
    )
    axes.tick_params(colors=DIM, labelsize=6.5, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(color=GRID, lw=0.6)
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.xaxis.set_major_locator(dates.MinuteLocator(interval=1 if w >= 8 else 2))
    axes.set_xlim(begin / 86400, end / 86400)
    {"timeseries": lines, "state-timeline": states, "heatmap": heat}[panel["type"]](axes, panel, stage, begin, end)


def answers(panel, stage, begin, end):
    """Every (name, times in days, values) of a panel."""
    for target in panel["targets"]:
        found = stage.ask("query_range", query=dashboard.fill(target["expr"]), start=begin, end=end, step=f"{STEP}s")[
            "result"
        ]
        for one in found:
            name = target["legendFormat"]
            for label, value in one["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = {round(float(moment)): float(value) for moment, value in one["values"]}
            moments = [round(begin) + STEP * number for number in range(int((end - begin) / STEP))]
            yield (
                name,
                np.array(moments) / 86400,
                np.array([points.get(at, points.get(at + 1, math.nan)) for at in moments]),
            )


def short(name, stage):
    for number, admin in enumerate(stage.workers):
        name = name.replace(admin, f"worker-{number}")
    return name


def colour_of(panel, name, number):
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            for change in override["properties"]:
                if change["id"] == "color":
                    return COLOURS[change["value"]["fixedColor"]]
    return CYCLE[number % len(CYCLE)]


def lines(axes, panel, stage, begin, end):
    custom = panel["fieldConfig"]["defaults"]["custom"]
    found = (
        sorted(answers(panel, stage, begin, end), key=lambda one: one[0])
        if len(panel["targets"]) == 1
        else list(answers(panel, stage, begin, end))
    )
    found = [(short(name, stage), at, values) for name, at, values in found if np.isfinite(values).any()]
    right = {
        o["matcher"]["options"]: {p["id"]: p["value"] for p in o["properties"]}
        for o in panel["fieldConfig"]["overrides"]
    }
    unit = panel["fieldConfig"]["defaults"]["unit"]
    below = 0
    for number, (name, at, values) in enumerate(found):
        colour, over = colour_of(panel, name, number), axes
        if right.get(name, {}).get("custom.axisPlacement") == "right":
            over = axes.twinx()
            over.tick_params(colors=DIM, labelsize=6.5, length=0)
            over.yaxis.set_major_formatter(lambda value, _, unit=right[name]["unit"]: spoken(value, unit))
            for spine in over.spines.values():
                spine.set_visible(False)
        if custom["stacking"]["mode"] == "normal":
            top = below + np.nan_to_num(values)
            over.fill_between(at, below, top, color=colour, alpha=0.6, lw=0)
            below = top
            over.plot(at, top, color=colour, lw=0.9, label=name)
        else:
            over.fill_between(at, 0, values, color=colour, alpha=custom["fillOpacity"] / 100, lw=0)
            over.plot(at, values, color=colour, lw=1.1, label=name)
        if over is not axes:
            axes.plot([], [], color=colour, label=name)
            over.set_ylim(bottom=0)
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if custom["thresholdsStyle"]["mode"] == "dashed" and step["value"]:
            axes.axhline(step["value"], color=DIM, lw=0.9, ls="--")
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] < 0.1 and not any(np.nanmax(values) > 0 for _, _, values in found):
        axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(plt.MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: spoken(value, unit))
    height = panel["gridPos"]["h"]
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.55 / (height - 2.95)),
        ncols=8,
        fontsize=6.5,
        frameon=False,
        handlelength=1,
        columnspacing=1,
        handletextpad=0.4,
        borderpad=0,
    )


def states(axes, panel, stage, begin, end):
    mapping = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    found = sorted(answers(panel, stage, begin, end))
    for number, (_, at, values) in enumerate(found):
        start = 0
        for stop in range(1, len(at) + 1):
            if stop == len(at) or values[stop] != values[start]:
                if np.isfinite(values[start]):
                    look = mapping[f"{values[start]:g}"]
                    last = at[min(stop, len(at) - 1)]
                    axes.barh(
                        number, last - at[start], left=at[start], height=0.8, color=COLOURS[look["color"]], alpha=0.85
                    )
                    if last - at[start] > 30 / 86400:
                        axes.text(
                            (at[start] + last) / 2,
                            number,
                            look["text"],
                            ha="center",
                            va="center",
                            fontsize=7.5,
                            color="#111217",
                        )
                start = stop
    axes.set_yticks(range(len(found)), [short(name, stage) for name, _, _ in found], fontsize=6.5)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(False)


def heat(axes, panel, stage, begin, end):
    found = sorted(answers(panel, stage, begin, end), key=lambda one: float(one[0].replace("+Inf", "inf")))
    unit = panel["options"]["yAxis"]["unit"]
    cumulative = np.nan_to_num(np.array([values for _, _, values in found]))
    counts = np.diff(cumulative, axis=0, prepend=0)
    used = np.flatnonzero(counts.sum(axis=1) > 0.01)
    low, high = (used[0], used[-1] + 1) if len(used) else (0, len(found))
    names = [spoken(float(name), unit) if name != "+Inf" else "+Inf" for name, _, _ in found]
    axes.pcolormesh(
        found[0][1],
        np.arange(low, high),
        np.ma.masked_less(counts[low:high], 0.01) ** 0.5,
        cmap=HEAT,
        shading="nearest",
    )
    ticks = np.unique(np.linspace(low, high - 1, min(5, high - low)).astype(int))
    axes.set_yticks(ticks, [names[tick] for tick in ticks])
    axes.grid(False)


def stat_of(panel, stage, end):
    """(text, colour) of a single number."""
    defaults = panel["fieldConfig"]["defaults"]
    found = stage.ask("query", query=dashboard.fill(panel["targets"][0]["expr"]), time=end)["result"]
    value = float(found[0]["value"][1]) if found else math.nan
    for mapping in defaults.get("mappings", []):
        if (look := mapping["options"].get(f"{value:g}")) is not None:
            return look["text"], COLOURS[look["color"]]
    if math.isnan(value):
        return defaults.get("noValue", "no data"), DIM
    colour = next(
        step["color"]
        for step in reversed(defaults["thresholds"]["steps"])
        if step["value"] is None or value >= step["value"]
    )
    colour = defaults["color"].get("fixedColor", colour)
    return spoken(value, defaults["unit"], defaults.get("decimals")), COLOURS[colour]


def spoken(value, unit, decimals=None):
    if unit == "percentunit":
        return f"{value * 100:.{decimals or 0}f} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return "0 s"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    text = f"{value / 1000:.3g}K" if value >= 1000 else f"{value:.3g}"
    if unit == "reqps":
        return f"{text} req/s"
    return f"{text} {unit.removeprefix('suffix: ')}" if unit.startswith("suffix: ") else text


def main(path):
    settings = {"batch.max_ids_per_message": "1000", "health.probe_max": "4s", "retry.max": "4s"}
    with Stage(settings) as stage:
        begin = story(stage)
        wait_for("the last queries have data", lambda: stage.ask("query", query="up")["result"])
        draw(stage, begin, time.time(), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
