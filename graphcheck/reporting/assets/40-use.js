// What a reader does with a drawing: click, hover, keys, search, filters, the ruler, links.
Object.assign(Stage.prototype, {
  toolbar() {
    const button = (text, title, act, extra = {}) => el("button", { type: "button", title, "aria-label": title, onclick: act, ...extra }, text);
    this.input = el("input", { type: "search", placeholder: "Search name or op  ( / )", "aria-label": "Search nodes by name or op", spellcheck: "false" });
    this.list = el("ul", { class: "hits", hidden: true });
    this.input.addEventListener("input", () => this.find());
    this.input.addEventListener("keydown", (e) => {
      if (e.key === "Enter") { e.preventDefault(); this.step(this.found || [], e.shiftKey ? -1 : 1); this.list.hidden = true; }
      if (e.key === "Escape") { this.input.value = ""; this.find(); this.view.focus(); }
      if (e.key === "ArrowDown" && this.list.firstChild) { e.preventDefault(); $("button", this.list)?.focus(); }
    });
    const counts = {};
    for (const v of this.g.verts) if (v.kind === "n") counts[v.status] = (counts[v.status] || 0) + 1;
    this.chips = ["different", "rounded", "a", "b", "layout", "same"].filter((s) => counts[s]).map((s) => {
      const chip = button(el("span", {}, el("span", { class: "g" }, GLYPH[s] || "="), ` ${counts[s]} ${BRIEF[s]}`), `Show only: ${WORDS[s]}`, () => {
        if (!this.filter.delete(s)) this.filter.add(s);
        chip.setAttribute("aria-pressed", this.filter.has(s));
        this.mark();
        if (this.filter.has(s) && s !== "same") this.step(this.notable(), 1);
      }, { class: `chip s-${s}`, "aria-pressed": "false" });
      return chip;
    });
    const views = this.g.sides.length < 2 ? [] : [["a", "A"], ["", "A | B"], ["b", "B"]].map(([only, text]) =>
      button(text, only ? `Show only ${text}` : "Show both", () => this.show(only), { "data-only": only, "aria-pressed": String(only === this.only) }));
    const full = this.drawings[this.drawings.length - 1], hidden = this.drawings[0].data.hidden;
    return el("div", { class: "bar" },
      el("div", { class: "searchbox" }, this.input, this.list),
      el("div", { class: "chips" }, ...this.chips),
      el("div", { class: "tools" },
        this.notable().length ? button(this.g.sides.length > 1 ? "↓ next" : "↓ marked", "Next difference (n)", () => this.step(this.notable(), 1)) : null,
        hidden && this.drawings.length > 1 ? button(`Shape ops ${hidden}`, "Show what depends on shapes and constants alone (s)", () => this.shapes(), { "aria-pressed": String(this.g === full) }) : null,
        views.length ? el("span", { class: "seg" }, ...views) : null,
        this.g.folds.length ? el("span", { class: "seg" },
          button("Fold", "Fold all (c)", () => this.folding(false)), button("Unfold", "Unfold all (o)", () => this.folding(true))) : null,
        el("span", { class: "seg" }, button("−", "Zoom out (-)", () => this.setZoom(this.zoom / 1.25)),
          button("Fit", "Fit the width (0)", () => { this.fit(); this.draw(); }), button("+", "Zoom in (+)", () => this.setZoom(this.zoom * 1.25))),
        button(corners(), "Fill the window (f)", () => this.full()),
        button("?", "Keys", () => this.help(), { class: "wide" })));
  },

  // One side, or both ("").
  show(only) {
    this.only = only;
    for (const b of $$("[data-only]", this.root)) b.setAttribute("aria-pressed", b.dataset.only === only);
    this.root.children[1].replaceWith(this.heads());
    this.fit();
    this.redraw();
  },

  heads() {
    const name = (s) => this.root.dataset[s] || s.toUpperCase();
    return el("div", { class: "heads" }, ...this.g.sides.filter((s) => !this.only || s === this.only).map((s) => el("span", {}, el("b", {}, this.g.sides.length > 1 ? s.toUpperCase() : ""), " ", el("bdi", {}, name(s)))));
  },

  shapes() {
    this.swap(this.drawings[this.g === this.drawings[0] ? this.drawings.length - 1 : 0]);
  },

  folding(open) {
    const y = this.view.scrollTop / this.g.height;
    this.g.openAll(open);
    this.fit();
    this.redraw();
    if (this.g.selected !== null) this.centre(this.g.selected, false);
    else this.view.scrollTop = y * this.g.height;
  },

  full() {
    this.root.classList.toggle("full");
    document.documentElement.classList.toggle("fixed", this.root.classList.contains("full"));
    this.fit();
    this.redraw();
    this.view.focus();
  },

  // After folding, zoom only changes where the drawing would not fit; columns still fill the view.
  refit() {
    const old = this.zoom;
    this.fit();
    if (old < this.zoom) {
      this.zoom = old;
      const many = this.only ? 1 : this.g.sides.length, gutters = (many - 1) * GUTTER;
      this.g.frame(Math.max(this.g.need, (this.view.clientWidth / old - gutters) / many));
    }
  },

  notable() {
    const wanted = (v) => (this.filter.size ? this.filter.has(v.status) : !CALM.has(v.status)) || v.mark;
    return this.g.verts.filter((v) => v.kind === "n" && wanted(v)).map((v) => v.i);
  },

  step(list, by) {
    if (!list.length) return;
    const now = this.g.selected;
    let at = list.indexOf(now);
    if (at < 0) at = by > 0 ? list.findIndex((v) => v > (now ?? -1)) : list.length - 1;
    else at = (at + by + list.length) % list.length;
    this.select(list[Math.max(0, at)], null, true);
  },

  find() {
    const found = (this.found = this.g.search(this.input.value));
    this.hits = new Set(found);
    this.list.replaceChildren(...found.slice(0, 60).map((v) => {
      const vert = this.g.verts[v], s = vert.a !== null ? "a" : "b", node = this.g.node(v, s);
      return el("li", {}, el("button", { type: "button", onclick: () => { this.list.hidden = true; this.select(v, s, true); } },
        el("b", {}, short(this.g.label(v, s), 40)), " ", el("span", {}, short(node ? node.name : "", 90)), vert.status === "plain" ? "" : el("i", { class: `s-${vert.status}` }, WORDS[vert.status])));
    }));
    const full = this.drawings[this.drawings.length - 1], more = this.g === full ? 0 : full.search(this.input.value).length - found.length;
    if (more > 0) this.list.append(el("li", {}, el("button", { type: "button", class: "more", onclick: () => this.swap(full) }, `${more} more among the shape ops that are hidden`)));
    if (found.length > 60) this.list.append(el("li", { class: "more" }, `and ${found.length - 60} more`));
    if (this.input.value.trim() && !found.length && more <= 0) this.list.append(el("li", { class: "more" }, "no node has this in its name or op"));
    this.list.hidden = !this.input.value.trim();
    this.mark();
  },

  click(e) {
    this.list.hidden = true;
    const hit = e.target.closest("[data-key]");
    if (!hit) { this.select(null); return; }
    const key = hit.dataset.key;
    if (key[0] === "v") this.select(+key.slice(2), key[1], false);
    else this.toggle(+(key[0] === "h" ? key.slice(1) : key.slice(2)));
  },

  toggle(id) {
    const fold = this.g.folds[id];
    const before = this.g.items.find((i) => (i.fold || i.head) === fold);
    const offset = before ? before.y * this.zoom - this.view.scrollTop : 0;
    fold.open = !fold.open;
    this.g.layout();
    this.refit();
    this.redraw();
    const after = this.g.items.find((i) => (i.fold || i.head) === fold);
    if (after) this.view.scrollTop = after.y * this.zoom - offset;
    this.draw();
  },

  hover(e) {
    const hit = e.target.closest("[data-key^=v]");
    this.over = hit ? +hit.dataset.key.slice(2) : null;
    this.mark();
  },

  // Classes that follow the selection, the hover, the search and the filter.
  mark() {
    const { selected } = this.g, focus = this.over ?? selected;
    for (const [key, node] of this.live) {
      if (key[0] === "v") {
        const v = +key.slice(2), status = this.g.verts[v].status;
        node.classList.toggle("selected", v === selected);
        node.classList.toggle("over", v === this.over);
        node.classList.toggle("hit", this.hits.has(v));
        node.classList.toggle("dim", (this.filter.size > 0 && !this.filter.has(status)) || (this.hits.size > 0 && !this.hits.has(v)));
      } else if (key[0] === "e") {
        node.classList.toggle("lit", focus !== null && (+node.dataset.u === focus || +node.dataset.v === focus));
      }
    }
    this.link(focus);
  },

  // The line from a node to its partner.
  link(v) {
    const layer = this.layers[2];
    layer.replaceChildren();
    if (v === null || v === undefined || this.g.sides.length < 2) return;
    const vert = this.g.verts[v];
    const [i, j] = vert.a !== null ? [v, this.g.byNode.b.get(vert.other)] : [this.g.byNode.a.get(vert.other), v];
    const p = this.g.at[i], q = this.g.at[vert.b !== null ? v : j];
    if (!p || !q || p.a === null || q.b === null) return;
    const x1 = this.g.cx.a + p.a + (p.fold ? FOLD.w : BOX.w) / 2, x2 = this.g.cx.b + q.b - (q.fold ? FOLD.w : BOX.w) / 2, m = (x1 + x2) / 2;
    layer.append(svg("path", { class: `partner s-${vert.status}`, d: `M${x1} ${p.y}C${m} ${p.y} ${m} ${q.y} ${x2} ${q.y}` }));
  },

  select(v, s = null, move = false) {
    this.g.selected = v;
    if (v === null || v === undefined) {
      this.g.selected = null;
      this.panel.hidden = true;
      this.mark();
      return;
    }
    const vert = this.g.verts[v];
    this.g.side = s && vert[s] !== null ? s : vert[this.g.side] !== null && this.g.side in this.g.cx ? this.g.side : vert.a !== null ? "a" : "b";
    if (this.g.reveal(v)) { this.refit(); this.redraw(); }
    if (this.only && this.only !== this.g.side) this.show(this.g.side);
    this.details(v);
    const low = this.g.at[v].y * this.zoom - this.view.scrollTop > this.view.clientHeight - this.panel.offsetHeight - 30;
    if (move || (low && this.panel.classList.contains("two"))) this.centre(v);
    this.mark();
    if (vert.kind === "n") history.replaceState(null, "", this.address(v));
  },

  address(v) {
    const view = this.root.dataset.view, s = this.g.side;
    return `#${view ? view + ";" : ""}node=${s}:${this.g.verts[v][s]}`;
  },

  centre(v, smooth = true) {
    const at = this.g.at[v], z = this.zoom, [x0] = this.window();
    const xs = this.g.sides.filter((s) => at[s] !== null && (!this.only || s === this.only)).map((s) => this.g.cx[s] + at[s]);
    const x = xs.length ? (Math.min(...xs) + Math.max(...xs)) / 2 - x0 : 0;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches || Math.abs(at.y * z - this.view.scrollTop) > 4000;
    const covered = this.panel.hidden || !this.panel.classList.contains("two") ? 0 : this.panel.offsetHeight;
    this.view.scrollTo({ left: x * z - this.view.clientWidth / 2, top: at.y * z - (this.view.clientHeight - covered) / 2, behavior: smooth && !calm ? "smooth" : "instant" });
    this.draw();
  },

  go(text) {
    const s = text[0], rest = text.slice(2), named = this.drawings[0].graphs[s]?.nodes.find((n) => n.name === rest);
    const id = /^\d+$/.test(rest) || !named ? rest : named.id;
    const home = this.drawings.find((d) => d.byNode[s]?.has(+id));
    if (home && home !== this.g) this.swap(home);
    const v = this.g.byNode[s]?.get(+id) ?? this.g.reader(s, +id);
    if (v === undefined) return false;
    this.select(v, s, false);
    this.centre(v, false);
    return true;
  },

  key(e) {
    if (e.altKey || e.ctrlKey || e.metaKey) return;
    const act = {
      ArrowDown: () => this.walk(1), ArrowUp: () => this.walk(-1),
      ArrowLeft: () => this.across("a"), ArrowRight: () => this.across("b"),
      n: () => this.step(this.notable(), 1), p: () => this.step(this.notable(), -1),
      "/": () => this.input.focus(), "+": () => this.setZoom(this.zoom * 1.25), "=": () => this.setZoom(this.zoom * 1.25), "-": () => this.setZoom(this.zoom / 1.25),
      0: () => { this.fit(); this.draw(); }, s: () => this.drawings.length > 1 && this.shapes(), c: () => this.folding(false), o: () => this.folding(true), f: () => this.full(), "?": () => this.help(),
      Escape: () => (this.root.classList.contains("full") ? this.full() : this.select(null)),
      Enter: () => {
        const spot = this.g.selected === null ? null : this.g.atomOf[this.g.selected];
        const chain = spot ? this.g.parents[spot[0]] : [];
        if (chain.length) this.toggle(chain[chain.length - 1].id);
      },
    }[e.key];
    if (!act) return;
    e.preventDefault();
    act();
  },

  // To the next vertex on the way down or up: along an edge where there is one.
  walk(by) {
    const now = this.g.selected;
    if (now === null) { this.step(this.g.verts.map((v) => v.i), by); return; }
    const next = (by > 0 ? this.g.next : this.g.prev)[this.g.side]?.get(now);
    this.select(next ? next[0] : Math.max(0, Math.min(this.g.verts.length - 1, now + by)), this.g.side, true);
  },

  across(s) {
    const now = this.g.selected;
    if (now === null || !this.g.sides.includes(s)) return;
    const vert = this.g.verts[now];
    const there = vert[s] !== null ? now : this.g.byNode[s].get(vert.other);
    if (there !== undefined) this.select(there, s, true);
  },

  overview() {
    const w = 14, h = this.g.height;
    this.ruler.setAttribute("viewBox", `0 0 ${w} ${h}`);
    this.marker = svg("rect", { class: "marker", x: 0, width: w });
    const rects = [];
    const put = (cls, y, tall) => rects.push(svg("rect", { class: cls, x: 2, y, width: w - 4, height: Math.max(tall, h / 160) }));
    for (const item of this.g.items) {
      if (item.fold) {
        const worst = ["different", "rounded", "a", "b", "layout"].find((s) => item.fold.counts[s]);
        put(worst ? `s-${worst}` : "s-same", item.y, item.h);
      } else if (item.atom !== undefined) {
        for (const [v] of this.g.data.atoms[item.atom].v) {
          const vert = this.g.verts[v];
          if (vert.mark) put("s-mark", this.g.at[v].y - ROW / 2, ROW);
          else if (!CALM.has(vert.status)) put(`s-${vert.status}`, this.g.at[v].y - ROW / 2, ROW);
        }
      }
    }
    this.ruler.replaceChildren(...rects, this.marker);
  },
});
