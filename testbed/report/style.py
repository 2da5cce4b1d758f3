"""Colours and the page's style sheet. Series are told apart by dash as well as by colour."""

from __future__ import annotations

from testbed.core.events import Hop

NUM_SERIES = 6
DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 3", "1 2")  # in line widths

# Hue says where (device, up-link, server, down-link), lightness which stage; the table beside the plot has the figures.
HOP_COLOURS: dict[str, str] = {
    Hop.DEVICE_WAIT: "#a9cdea",
    Hop.FRONT: "#3d8bc9",
    Hop.ENCODE: "#1c5f9e",
    Hop.SEAL: "#123f6b",
    Hop.UP_CONNECT: "#fdebd0",
    Hop.UP_WINDOW: "#fbe0b5",
    Hop.UP_QUEUE: "#fdd5a8",
    Hop.UP_SERIALISE: "#f9a14f",
    Hop.UP_PROPAGATE: "#e57b1f",
    Hop.UP_JITTER: "#c25a10",
    Hop.UP_RETRANSMIT: "#8f3b0c",
    Hop.ROUTER_WAIT: "#e0e2e6",
    Hop.SERVER_WAIT: "#b5dfc4",
    Hop.OPEN: "#86cba3",
    Hop.DECODE: "#57b883",
    Hop.BACK: "#1f8a5b",
    Hop.SEAL_TOKEN: "#12613f",
    Hop.DOWN_CONNECT: "#f3edf8",
    Hop.DOWN_WINDOW: "#e9dff3",
    Hop.DOWN_QUEUE: "#dccfea",
    Hop.DOWN_SERIALISE: "#b79fd4",
    Hop.DOWN_PROPAGATE: "#9573bb",
    Hop.DOWN_JITTER: "#75519d",
    Hop.DOWN_RETRANSMIT: "#56337c",
    Hop.OPEN_TOKEN: "#0b2a4a",
    Hop.CUT_SHORT: "#8a8f98",
}

CSS = """
:root { color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --ink: #1b1f26; --soft: #5a6270; --line: #dfe2e8; --warn: #a4380b;
  --warn-card: #fdeee6; --s0: #0068a8; --s1: #c9500c; --s2: #00835f; --s3: #a8478f; --s4: #8a6a00; --s5: #5b6472; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12151a; --card: #1b1f26; --ink: #e8eaee; --soft: #a3abb8; --line: #343b46; --warn: #ff9d6c;
  --warn-card: #3a2318; --s0: #64b8f0; --s1: #ff9150; --s2: #3ed3a4; --s3: #ec9fd4; --s4: #e9c84a; --s5: #aeb7c4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 4px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 20px 0 6px; }
p { margin: 0 0 10px; max-width: 72ch; }
.note, .lead { color: var(--soft); }
.note { font-size: 14px; max-width: none; }
section, .tile, .banner { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
section { padding: 20px 22px; margin-top: 18px; }
.banner { padding: 12px 18px; margin-top: 16px; background: var(--warn-card); color: var(--warn);
  border-color: currentColor; }
.tiles { display: grid; gap: 12px; margin-top: 18px; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); }
.tile { padding: 12px 14px; }
.tile .name { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 24px; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile .more { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.tile.warn .value, td .warn { color: var(--warn); }
.pair { display: grid; gap: 8px 28px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
figure { margin: 10px 0 0; min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; max-width: 640px; }
.wide { overflow-x: auto; margin-top: 10px; }
.wide svg { max-width: none; min-width: 540px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0 0; padding: 0; list-style: none;
  font-size: 13px; }
.legend li { display: inline-flex; align-items: center; gap: 7px; overflow-wrap: anywhere; }
.legend svg { flex: none; width: 30px; height: 10px; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px;
  vertical-align: -1px; }
span.hop { white-space: nowrap; }
.scroll { overflow-x: auto; margin-top: 14px; }
.scroll:focus-visible { outline: 2px solid var(--s0); }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 4px; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; font-size: 13px; }
th.text, td.text { text-align: left; }
tbody th { font-weight: 500; min-width: 15ch; }
thead th.figure { white-space: normal; min-width: 9ch; overflow-wrap: break-word; vertical-align: bottom; }
thead th.text { vertical-align: bottom; }
td.text:nth-child(2) { white-space: normal; min-width: 16ch; }
th.text { max-width: 34ch; white-space: normal; overflow-wrap: break-word; }
dl { margin: 8px 0 0; display: grid; gap: 2px 28px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
dl div { display: flex; gap: 12px; padding: 4px 0; border-bottom: 1px solid var(--line); font-size: 14px; }
dt { color: var(--soft); flex: 0 0 11em; overflow-wrap: anywhere; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
blockquote { margin: 10px 0 0; padding: 2px 0 2px 14px; border-left: 3px solid var(--s0); white-space: pre-wrap;
  overflow-wrap: anywhere; }
blockquote footer { color: var(--soft); font-size: 13px; white-space: normal; }
summary { cursor: pointer; font-weight: 600; }
pre, code { font: 13px/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; }
pre { overflow-x: auto; margin: 10px 0 0; }
@media (max-width: 520px) { main { padding: 20px 12px 40px; } section { padding: 16px 14px; } h1 { font-size: 25px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tile .value { font-size: 20px; }
  dl div { flex-direction: column; gap: 0; } dt { flex: none; } }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
