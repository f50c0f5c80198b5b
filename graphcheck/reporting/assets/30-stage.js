const FIRST = { divergence: "first divergence", rounding: "first rounded constant" };

// One drawing on the page: what is in view becomes SVG, nothing else does.
class Stage {
  // drawings: one with every node, or a calm one before it
  constructor(root, drawings, devs) {
    this.root = root;
    this.drawings = drawings;
    this.g = drawings[0];
    this.devs = devs || {};
    this.zoom = 1;
    this.only = "";
    this.filter = new Set();
    this.hits = new Set();
    this.live = new Map();
    const first = this.g.data.goto;
    if (first !== null) this.g.reveal(first);
    // Where two columns would be too small to read, one side opens; the other is a tap away.
    const fitting = root.clientWidth / (2 * this.g.need + GUTTER);
    if (this.g.sides.length > 1 && root.clientWidth < 700 && fitting < 0.7) this.only = first !== null && this.g.verts[first].b !== null ? "b" : "a";
    this.build();
    this.fit();
    this.redraw();
    let before = this.view.clientWidth;
    new ResizeObserver(() => {
      const now = this.view.clientWidth;
      if (now && Math.abs(now - before) > 40) { before = now; this.fit(); this.redraw(); }
    }).observe(this.view);
    if (first !== null) this.centre(first, false);
  }

  // From the calm drawing to the full one or back; the selected node stays if it is in both.
  swap(to) {
    const old = this.g, v = old.selected, vert = v === null ? null : old.verts[v];
    this.g = to;
    to.side = old.side;
    this.clear();
    this.over = null;
    this.filter.clear();
    this.root.firstChild.replaceWith(this.toolbar());
    this.find();
    this.fit();
    this.redraw();
    const there = vert && vert.kind === "n" ? to.byNode[old.side].get(vert[old.side]) : undefined;
    this.select(there ?? null, null, there !== undefined);
  }

  build() {
    this.view = el("div", { class: "view", tabindex: "0", role: "application", "aria-label": "Model graphs. Arrow keys walk, Enter folds, slash searches." });
    this.svg = svg("svg", { class: "canvas" });
    this.layers = ["bands", "lines", "links", "boxes"].map((name) => svg("g", { class: name }));
    this.svg.append(this.defs(), ...this.layers);
    this.view.append(this.svg);
    this.ruler = svg("svg", { class: "ruler", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.panel = el("aside", { class: this.g.sides.length > 1 ? "panel two" : "panel", hidden: true, "aria-label": "Details of the node", "aria-live": "polite" });
    this.body = el("div", { class: "stagebody" }, this.view, this.ruler, this.panel);
    this.root.replaceChildren(this.toolbar(), this.heads(), this.body);
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; this.draw(); });
    };
    this.view.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(later).observe(this.view);
    this.svg.addEventListener("click", (e) => this.click(e));
    this.svg.addEventListener("pointerover", (e) => this.hover(e));
    this.view.addEventListener("keydown", (e) => this.key(e));
    this.view.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      this.setZoom(this.zoom * Math.exp(-e.deltaY / 300));
    }, { passive: false });
    this.drag();
    this.ruler.addEventListener("pointerdown", (e) => this.jump(e));
    this.ruler.addEventListener("pointermove", (e) => e.buttons && this.jump(e));
    addEventListener("beforeprint", () => this.print());
    addEventListener("afterprint", () => this.size());
  }

  defs() {
    const hatch = (id, angle) => svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${angle})` },
      svg("line", { x1: 0, y1: 0, x2: 0, y2: 6, class: id }));
    return svg("defs", {}, hatch("hatch-a", 45), hatch("hatch-b", -45));
  }

  drag() {
    let from = null;
    this.view.addEventListener("pointerdown", (e) => {
      if (e.pointerType !== "mouse" || e.button || e.target.closest("[data-key]")) return;
      from = { x: e.clientX, y: e.clientY, left: this.view.scrollLeft, top: this.view.scrollTop };
      this.view.classList.add("dragging");
    });
    addEventListener("pointermove", (e) => {
      if (from) this.view.scrollTo(from.left - e.clientX + from.x, from.top - e.clientY + from.y);
    });
    addEventListener("pointerup", () => { from = null; this.view.classList.remove("dragging"); });
  }

  jump(e) {
    const box = this.ruler.getBoundingClientRect();
    const y = ((e.clientY - box.top) / box.height) * this.g.height * this.zoom;
    this.view.scrollTop = y - this.view.clientHeight / 2;
  }

  window() {
    if (!this.only) return [0, this.g.width];
    return this.g.edge[this.only];
  }

  fit() {
    const room = (this.view.clientWidth || 1000) - 4, many = this.only ? 1 : this.g.sides.length, gutters = (many - 1) * GUTTER;
    this.zoom = Math.max(room < 700 ? 0.42 : 0.5, Math.min(1.1, room / (many * this.g.need + gutters)));
    this.g.frame(Math.max(this.g.need, (room / this.zoom - gutters) / many));
    this.size();
  }

  setZoom(z) {
    const v = this.view, old = this.zoom;
    this.zoom = Math.max(0.12, Math.min(2.5, z));
    const cx = (v.scrollLeft + v.clientWidth / 2) / old, cy = (v.scrollTop + v.clientHeight / 2) / old;
    this.size();
    v.scrollTo(cx * this.zoom - v.clientWidth / 2, cy * this.zoom - v.clientHeight / 2);
    this.draw();
  }

  size() {
    const [x0, x1] = this.window();
    this.svg.setAttribute("viewBox", `${x0} 0 ${x1 - x0} ${this.g.height}`);
    this.svg.setAttribute("width", Math.round((x1 - x0) * this.zoom));
    this.svg.setAttribute("height", Math.round(this.g.height * this.zoom));
    this.svg.classList.toggle("tiny", this.zoom < 0.28);
    // A small drawing needs no tall window.
    this.body.style.maxHeight = this.root.classList.contains("full") ? "none" : `${Math.max(380, Math.round(this.g.height * this.zoom) + 24)}px`;
  }

  // On paper stands what is in view, which is the first divergence if nobody has scrolled.
  print() {
    const [x0, x1] = this.window(), tall = Math.min(this.g.height, this.view.clientHeight / this.zoom);
    const top = Math.max(0, Math.min(this.view.scrollTop / this.zoom, this.g.height - tall));
    this.svg.setAttribute("viewBox", `${x0} ${top} ${x1 - x0} ${tall}`);
    this.svg.removeAttribute("width");
    this.svg.removeAttribute("height");
  }

  // After folding or a change of what is shown.
  redraw() {
    this.clear();
    this.size();
    this.overview();
    this.draw();
  }

  clear() {
    this.live.forEach((node) => node.remove());
    this.live.clear();
  }

  draw() {
    const top = this.view.scrollTop / this.zoom - 200;
    const end = (this.view.scrollTop + this.view.clientHeight) / this.zoom + 200;
    const keep = new Set();
    const put = (key, layer, make) => {
      keep.add(key);
      if (this.live.has(key)) return;
      const node = make();
      this.live.set(key, node);
      this.layers[layer].append(node);
    };
    for (const item of this.g.items) {
      const bottom = item.head ? item.end : item.y + item.h;
      if (bottom < top || item.y > end) continue;
      if (item.atom !== undefined) {
        for (const [v] of this.g.data.atoms[item.atom].v) {
          const y = this.g.at[v].y;
          if (y + ROW > top && y - ROW < end) for (const s of this.g.sides) if (this.g.at[v][s] !== null) put(`v${s}${v}`, 3, () => this.box(v, s));
        }
      } else if (item.fold) {
        put(`band${item.fold.id}`, 0, () => this.band(item));
        for (const s of this.g.sides) if (item.fold.has[s]) put(`f${s}${item.fold.id}`, 3, () => this.foldBox(item, s));
      } else {
        put(`h${item.head.id}`, 0, () => this.openBox(item));
      }
    }
    for (const line of this.g.lines) {
      if (line.y2 < top || line.y1 > end) continue;
      put(`e${line.key}`, 1, () => svg("path", { class: line.far ? "edge far" : "edge", d: line.d, "data-u": line.u, "data-v": line.v }));
    }
    for (const [key, node] of this.live) if (!keep.has(key)) { node.remove(); this.live.delete(key); }
    this.mark();
    this.marker.setAttribute("y", this.view.scrollTop / this.zoom);
    this.marker.setAttribute("height", Math.min(this.view.clientHeight / this.zoom, this.g.height));
  }

  box(v, s) {
    const vert = this.g.verts[v], at = this.g.at[v], x = this.g.cx[s] + at[s] - BOX.w / 2, y = at.y - BOX.h / 2;
    const label = this.g.label(v, s);
    const names = this.g.tensorNames(v, s), tensor = (this.g.graphs[s].tensors || {})[names[0]];
    const out = svg("g", { class: `box k-${vert.kind} s-${vert.status}${vert.mark ? " marked" : ""}${FIRST[vert.mark] ? ` ${vert.mark}` : ""}`,
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, "data-key": `v${s}${v}` });
    out.append(svg("rect", { width: BOX.w, height: BOX.h, rx: vert.kind === "n" ? 7 : 19 }));
    if (vert.status === "a" || vert.status === "b") out.append(svg("rect", { class: `hatched h-${vert.status}`, width: BOX.w, height: BOX.h, rx: 7 }));
    const sub = tensor ? sizeText(tensor) : "";
    out.append(words("text", "op", BOX.w / 2, sub ? 16 : 23, short(label, 19)));
    if (sub) out.append(words("text", "dims", BOX.w / 2, 30, short(sub, 21)));
    if (GLYPH[vert.status]) out.append(svg("circle", { class: "badge", cx: BOX.w - 4, cy: 4, r: 8 }), words("text", "glyph", BOX.w - 4, 7.6, GLYPH[vert.status]));
    if (vert.mark) out.append(svg("rect", { class: "flag", x: -5, y: -5, width: BOX.w + 10, height: BOX.h + 10, rx: 11 }));
    if (FIRST[vert.mark]) out.append(words("text", "flagword", BOX.w / 2, -10, FIRST[vert.mark]));
    const dev = s === "a" ? this.devs[names[0]] : null;
    if (dev && dev[0] > 0) out.append(this.gauge(dev));
    out.append(words("title", "", 0, 0, this.brief(v, s)));
    return out;
  }

  // The measured deviation, painted on the node: a short bar on a log scale around BAND spreads of rounding.
  gauge([deviation, spread]) {
    const size = spread > 0 && deviation > 0 ? Math.log10(deviation / spread / BAND) : deviation > 0 ? 0 : -3;
    const part = Math.max(0, Math.min(1, (size + 3) / 6));
    return svg("g", { class: size > 0 ? "gauge high" : "gauge" },
      svg("rect", { x: 8, y: BOX.h - 4, width: BOX.w - 16, height: 2 }),
      svg("rect", { class: "level", x: 8, y: BOX.h - 4, width: (part * (BOX.w - 16)).toFixed(1), height: 2 }));
  }

  band(item) {
    const calm = Object.keys(item.fold.counts).every((s) => CALM.has(s));
    return svg("rect", { class: calm ? "band" : "band busy", x: 4, y: item.y + 4, width: this.g.width - 8, height: item.h - 8, rx: 14 });
  }

  foldBox(item, s) {
    const fold = item.fold, x = this.g.cx[s] - FOLD.w / 2, y = item.y + GAP;
    const out = svg("g", { class: `fold${fold.times ? " many" : ""}`, transform: `translate(${x.toFixed(1)} ${y})`, "data-key": `f${s}${fold.id}` });
    if (fold.times) for (const o of [8, 4]) out.append(svg("rect", { class: "sheet", x: o, y: o, width: FOLD.w, height: FOLD.h, rx: 10 }));
    out.append(svg("rect", { width: FOLD.w, height: FOLD.h, rx: 10 }));
    out.append(svg("path", { class: "turn", d: "M16 12l7 4.5l-7 4.5z" }), words("text", "op", 28, 21, short(fold.title, fold.times ? 25 : 31)));
    if (fold.times) out.append(words("text", "times", FOLD.w - 14, 21, `× ${fold.times}`));
    out.append(words("text", "dims", 16, 38, short(counted(fold.counts), 40)));
    out.append(words("title", "", 0, 0, `${fold.title}\n${fold.note}\n${counted(fold.counts)}\nClick to open`));
    return out;
  }

  openBox(item) {
    const inset = 6 + item.depth * 8, fold = item.head;
    const out = svg("g", { class: "opened", "data-key": `h${fold.id}` });
    out.append(svg("rect", { x: inset, y: item.y + 3, width: this.g.width - 2 * inset, height: item.end - item.y - 3, rx: 12 }));
    const wide = fold.times ? ` × ${fold.times}` : "";
    out.append(svg("path", { class: "turn", d: `M${inset + 12} ${item.y + 12}h9l-4.5 7z` }), words("text", "op", inset + 26, item.y + 20, short(fold.title, 48) + wide));
    out.append(words("title", "", 0, 0, "Click to fold"));
    return out;
  }
}

const counted = (counts) => Object.entries(counts).map(([s, n]) => `${n} ${s === "plain" ? (n === 1 ? "node" : "nodes") : WORDS[s]}`).join(" · ");

function words(name, cls, x, y, text) {
  const node = svg(name, name === "title" ? {} : { class: cls, x, y });
  node.textContent = text;
  return node;
}
