"""The style sheet of a report's page: for screens, narrow or wide, and for paper."""

STYLE = """
:root {
  --ink: #1d1d1f; --muted: #595959; --rule: #d9d9d9; --agrees: #0072b2; --disagrees: #b84a00;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif;
}
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; font-weight: 600; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; font-weight: 600; margin: 2.5rem 0 .75rem; }
p { margin: .25rem 0; }
.lead { font-size: 1.1rem; }
.warning { border-left: 4px solid var(--disagrees); padding-left: .75rem; }
a { color: inherit; text-decoration-color: #999; }
a:focus-visible { outline: 2px solid var(--agrees); outline-offset: 2px; }
code { font: .88em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
cite, em, caption, figcaption { color: var(--muted); font-style: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td {
  text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; font-weight: normal;
}
thead th { color: var(--muted); font-size: .85rem; border-bottom: 1px solid var(--rule); }
tbody th { font-weight: 600; }
tr + tr th, tr + tr td, tbody + tbody tr:first-child > * { border-top: 1px solid var(--rule); }
tr.group th { padding-top: 1.4rem; color: var(--muted); }
tr.about td {
  border: 0; padding: 0 0 .9rem 1rem; font-size: .88rem; line-height: 1.55; max-width: 60rem;
}
.whole { display: inline-block; white-space: nowrap; }
.agrees { color: var(--agrees); stroke: var(--agrees); fill: var(--agrees); }
.disagrees { color: var(--disagrees); stroke: var(--disagrees); fill: var(--disagrees); }
.undecided { color: var(--muted); stroke: var(--muted); fill: var(--muted); }
span.agrees, span.disagrees, span.undecided { font-weight: 600; }
svg line { stroke-width: 2; }
svg .open { stroke-dasharray: 4 4; }
svg .neutral { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 2; }
svg .band { fill: #ececec; }
svg .paper { fill: #fff; fill-opacity: .6; stroke: var(--ink); stroke-width: 1.2; }
figure { margin: 0 0 2.25rem; break-inside: avoid; }
figure img { max-width: 100%; height: auto; margin-right: 1rem; vertical-align: top; }
.panel { display: inline-block; vertical-align: top; margin-bottom: .5rem; }
.panel p { font-size: .8rem; margin: 0 0 .2rem; }
.pixels { image-rendering: pixelated; }
figcaption { font-size: .88rem; max-width: 52rem; margin-top: .4rem; }
figcaption b { color: var(--ink); }
@media print {
  @page { margin: 14mm; size: a4 landscape; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  thead { display: table-header-group; }
  tbody, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .wide { overflow: visible; }
  a { text-decoration: none; }
}
"""
