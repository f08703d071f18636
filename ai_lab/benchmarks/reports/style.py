"""The style sheets of a page and of what a notebook shows. Colours that people who see fewer can tell apart."""

_COLOURS_LIGHT = ("#0072b2", "#d55e00", "#00805f", "#b0478f", "#a06a00", "#2a8fc7", "#6b6b00", "#555555")
_COLOURS_DARK = ("#5ab4f0", "#ff9a4d", "#3fd0a4", "#e89ac7", "#f0c050", "#9ad4ff", "#d0d060", "#b8b8b8")
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "5 2 2 2 2 2", "12 4", "1 2", "3 6")


def _variables(colours: tuple[str, ...]) -> str:
    return "".join(f"--s{slot}:{colour};" for slot, colour in enumerate(colours))


_LIGHT = (
    "--ink:#1c1e21;--soft:#555b63;--line:#c9cdd2;--paper:#ffffff;--band:#e8ebef;--good:#0a6b3d;--doubt:#8a5300;"
    "--bad:#b3261e;" + _variables(_COLOURS_LIGHT)
)
_DARK = (
    "--ink:#e8eaed;--soft:#a8b0b9;--line:#454b52;--paper:#16181b;--band:#2a2f35;--good:#5fd39a;--doubt:#f0b455;"
    "--bad:#ff8a80;" + _variables(_COLOURS_DARK)
)

#: Everything is inside one class, so that a notebook's own cells keep their looks.
SUMMARY = (
    f".ailab-bench{{{_LIGHT}color-scheme:light dark;color:var(--ink);font:14px/1.5 system-ui,sans-serif}}"
    f"@media(prefers-color-scheme:dark){{.ailab-bench{{{_DARK}}}}}"
    ".ailab-bench table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5em 0}"
    ".ailab-bench caption{text-align:left;color:var(--soft);padding:.3em 0}"
    ".ailab-bench th,.ailab-bench td{border-bottom:1px solid var(--line);padding:.25em .8em .25em 0;text-align:left;"
    "vertical-align:top;font-weight:normal;overflow-wrap:break-word;background:none;color:inherit}"
    ".ailab-bench td span,.ailab-bench td.n{white-space:nowrap}.ailab-bench thead th{color:var(--soft)}"
    ".ailab-bench .wide{overflow-x:auto}"
    ".ailab-bench .grade{border-left:6px solid var(--soft);padding:.4em .8em;background:var(--band)}"
    ".ailab-bench .valid{border-color:var(--good)}.ailab-bench .grade.suspect{border-color:var(--doubt)}"
    ".ailab-bench .grade.invalid{border-color:var(--bad)}"
    ".ailab-bench .valid strong,.ailab-bench b.v-faster{color:var(--good)}"
    ".ailab-bench .suspect strong,.ailab-bench li.suspect b{color:var(--doubt)}"
    ".ailab-bench .invalid strong,.ailab-bench li.invalid b,.ailab-bench b.v-slower{color:var(--bad)}"
    ".ailab-bench ul{padding-left:1.2em}"
)

PAGE = (
    "body{margin:0}.ailab-bench{background:var(--paper);min-height:100vh;box-sizing:border-box;"
    "padding:1.5em max(1em,calc(50vw - 36em)) 4em}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}figure{margin:0}"
    "svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}"
    "svg.key{display:inline-block;width:28px;height:10px}"
    ".legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2em 1.4em}"
    ".note{color:var(--soft);margin:.2em 0}"
    "pre{overflow-x:auto;background:var(--band);padding:.6em}summary{cursor:pointer}"
    ".axis{stroke:var(--soft)}.grid{stroke:var(--line);stroke-width:.6}.band{fill:var(--band)}"
    ".bad{stroke:var(--bad);stroke-width:1.5}.pale{opacity:.35}path{fill:none;stroke-width:1.8}.bar{stroke-width:1.8}"
    "path.tick{stroke-width:1.2;stroke-dasharray:none!important}"
    + "".join(
        f"path.s{slot},line.s{slot}{{stroke:var(--s{slot})}}path.s{slot}{{stroke-dasharray:{dash}}}"
        f"circle.s{slot},.f{slot}{{fill:var(--s{slot})}}"
        for slot, dash in enumerate(_DASHES)
    )
    + "".join(
        f"line.v-{verdict}{{stroke:var(--{colour})}}circle.v-{verdict},svg text.v-{verdict}{{fill:var(--{colour})}}"
        for verdict, colour in (("faster", "good"), ("slower", "bad"), ("equivalent", "ink"), ("inconclusive", "soft"))
    )
    + "@media print{details{display:block}}"
)
