// Blocks of data, the theme, small helpers. All text reaches the page through textContent.
const SVG = "http://www.w3.org/2000/svg";
const $ = (sel, root = document) => root.querySelector(sel);
const $$ = (sel, root = document) => [...root.querySelectorAll(sel)];

function el(name, attrs = {}, ...children) {
  const node = document.createElement(name);
  for (const [k, v] of Object.entries(attrs)) {
    if (k.startsWith("on")) node.addEventListener(k.slice(2), v);
    else if (v !== null && v !== undefined && v !== false) node.setAttribute(k, v === true ? "" : v);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

function svg(name, attrs = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [k, v] of Object.entries(attrs)) if (v !== null && v !== undefined) node.setAttribute(k, v);
  node.append(...children);
  return node;
}

// Four corners, drawn: few fonts have the glyph.
// Icons are drawn: fonts lack their signs. The theme of the system, light, dark.
const THEMES = { auto: ["M6 1a5 5 0 0 0 0 10Z"], light: ["M6 0v2M6 10v2M0 6h2M10 6h2M1.8 1.8l1.4 1.4M8.8 8.8l1.4 1.4M1.8 10.2l1.4-1.4M8.8 3.2l1.4-1.4"], dark: ["M10.4 7.6A5 5 0 1 1 4.9 1.2A4 4 0 0 0 10.4 7.6Z"] };
function themeIcon(name) {
  const round = name === "dark" ? [] : [svg("circle", { cx: 6, cy: 6, r: name === "auto" ? 5 : 2.5, fill: name === "auto" ? "none" : "currentColor", stroke: "currentColor" })];
  return svg("svg", { width: 14, height: 14, viewBox: "0 0 12 12", "aria-hidden": "true" }, ...round,
    ...THEMES[name].map((d) => svg("path", { d, fill: name === "light" ? "none" : "currentColor", stroke: "currentColor" })));
}
const corners = () => svg("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" },
  svg("path", { d: "M1 4V1h3M8 1h3v3M11 8v3H8M4 11H1V8", fill: "none", stroke: "currentColor", "stroke-width": 1.5 }));

const blocks = new Map();
function load(id) {
  if (!blocks.has(id)) blocks.set(id, unpack(document.getElementById(id)));
  return blocks.get(id);
}

async function unpack(holder) {
  if (!holder) throw new Error("no such data in this file");
  const bytes = Uint8Array.from(atob(holder.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const short = (text, n) => (text.length <= n ? text : text.slice(0, n - 1) + "…");
const shapeText = (dims) => (!dims ? "" : dims.length ? dims.map((d) => (d === null ? "?" : d)).join("×") : "scalar");
// A dim whose formula is long is shown at the size that was run; the formula stands in the title.
const LONG_DIM = 12;
const sizeText = (t) => shapeText(t.shape?.map((d, i) => (typeof d === "string" && d.length > LONG_DIM && t.sizes ? t.sizes[i] : d)));

function numberText(x) {
  if (typeof x !== "number") return x === null || x === undefined ? "–" : String(x);
  if (x === 0) return "0";
  return Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 ? String(+x.toPrecision(3)) : x.toExponential(1);
}

function remembered(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* a file opened from disk may have no storage */ }
  return null;
}

function theme() {
  const button = $("#theme");
  const names = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
  let now = remembered("graphcheck-theme");
  if (!(now in names)) now = "auto";
  const show = () => {
    if (now === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    button.replaceChildren(themeIcon(now));
    button.title = names[now];
    button.setAttribute("aria-label", names[now]);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    now = { auto: "light", light: "dark", dark: "auto" }[now];
    remembered("graphcheck-theme", now);
    show();
  });
  show();
}

// "#pair-0-3;node=a:12" -> {view: "pair-0-3", node: "a:12"}; a node is told by its number or its name
function place() {
  const out = {};
  for (const piece of location.hash.slice(1).split(";")) {
    const part = decodeURIComponent(piece), at = part.indexOf("=");
    if (at > 0) out[part.slice(0, at)] = part.slice(at + 1);
    else if (part) out.view = part;
  }
  return out;
}

function toast(text) {
  const note = el("div", { class: "toast", role: "status" }, text);
  document.body.append(note);
  setTimeout(() => note.remove(), 1600);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("This browser does not let a page copy");
  }
}
