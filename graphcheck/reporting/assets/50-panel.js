// The panel beside a drawing: one node and its partner, in words.
Object.assign(Stage.prototype, {
  details(v) {
    const vert = this.g.verts[v], first = this.g.side;
    const parts = [];
    for (const s of this.g.sides) {
      let at = v;
      if (vert[s] === null) at = this.g.byNode[s].get(vert.other);
      parts.push(at === undefined ? this.missing(s, vert.status) : this.about(at, s, s !== first));
    }
    const status = WORDS[vert.status];
    this.panel.replaceChildren(
      el("div", { class: "panelhead" },
        el("h3", {}, short(this.g.label(v, first), 60)),
        status ? el("span", { class: `tag s-${vert.status}` }, el("span", { class: "g" }, GLYPH[vert.status] || "="), ` ${status}`) : null,
        vert.mark ? el("span", { class: "tag s-mark" }, vert.mark) : null,
        vert.kind === "n" ? el("button", { type: "button", class: "quiet", onclick: () => copy(location.href.split("#")[0] + this.address(v)) }, "Copy link") : null,
        el("button", { type: "button", class: "close", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.select(null) }, "×")),
      ...parts);
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
  },

  // What hovering tells: the panel in a few lines.
  brief(v, s) {
    const vert = this.g.verts[v], node = this.g.node(v, s), other = s === "a" ? "b" : "a";
    const lines = [(node ? `${node.op_type} ${short(node.name, 200)}` : short(this.g.label(v, s), 200)) + (vert.mark ? ` (${vert.mark})` : "")];
    if (node?.module) lines.push(`module ${short(node.module, 200)}`);
    for (const [k, x] of Object.entries(node?.attributes || {}).slice(0, 6)) lines.push(`${short(k, 40)} = ${short(String(x), 80)}`);
    const name = this.g.tensorNames(v, s)[0], t = (this.g.graphs[s].tensors || {})[name] || {};
    const run = sizeText(t);
    if (run !== shapeText(t.shape)) lines.push(`${run} as run`);
    lines.push(`${shapeText(t.shape) || "shape unknown"} ${String(t.dtype || "").toLowerCase()}`);
    const there = vert[other] !== null ? v : this.g.byNode[other]?.get(vert.other);
    const partner = there === undefined || !this.g.sides.includes(other) ? null : this.g.node(there, other);
    if (partner) lines.push(`${WORDS[vert.status]}: ${partner.op_type} ${short(partner.name, 200)} of ${other.toUpperCase()}`);
    else if (WORDS[vert.status]) lines.push(WORDS[vert.status]);
    const dev = s === "a" ? this.devs[name] : null;
    if (dev) lines.push(`deviation ${numberText(dev[0])}${dev[1] ? `, spread ${numberText(dev[1])}` : ""}`);
    return lines.join("\n");
  },

  missing(s, status) {
    return el("section", {}, el("h4", {}, s.toUpperCase()), el("p", { class: "soft" }, status === "plain" ? "This result does not record partners." : "No partner on this side."));
  },

  about(v, s, partner) {
    const node = this.g.node(v, s), vert = this.g.verts[v];
    const rows = [];
    const add = (name, ...value) => rows.push(el("dt", {}, name), el("dd", {}, ...value));
    if (node) {
      add("name", el("code", {}, node.name || "(none)"));
      add("op", `${node.domain ? node.domain + "." : ""}${node.op_type}`);
      if (node.module) add("module", el("code", {}, node.module));
      for (const [k, x] of Object.entries(node.attributes || {})) add(k, el("code", {}, short(String(x), 400)));
    } else {
      add(vert.kind === "i" ? "input" : "output", el("code", {}, this.g.tensorNames(v, s)[0] || ""));
    }
    const tensors = [];
    if (node) {
      node.inputs.forEach((name, i) => name && tensors.push(this.tensor(name, s, "in", i, v)));
      node.outputs.forEach((name, i) => name && tensors.push(this.tensor(name, s, "out", i, v)));
    } else {
      tensors.push(this.tensor(this.g.tensorNames(v, s)[0] || "", s, vert.kind === "i" ? "out" : "in", 0, v));
    }
    const head = this.g.sides.length > 1
      ? el("h4", {}, `${s.toUpperCase()} `, partner ? el("button", { type: "button", class: "quiet partnerlink", onclick: () => this.select(v, s, true) }, "partner") : "") : "";
    return el("section", { "data-side": s, class: partner ? "" : "current" }, head, el("dl", {}, ...rows), el("ul", { class: "tensors" }, ...tensors));
  },

  tensor(name, s, way, index, v) {
    const t = (this.g.graphs[s].tensors || {})[name] || {};
    const dev = s === "a" && way === "out" ? this.devs[name] : null;
    const far = way === "in"
      ? (this.g.prev[s].get(v) || []).find((u) => this.g.tensorNames(u, s).includes(name))
      : (this.g.next[s].get(v) || [])[0];
    return el("li", {},
      el("span", { class: "way" }, way === "in" ? `in ${index}` : `out ${index}`),
      el("div", {},
        el("b", { title: shapeText(t.shape) }, sizeText(t) || "shape unknown"), " ", el("span", { class: "soft" }, String(t.dtype || "").toLowerCase()), t.constant ? el("span", { class: "soft" }, " constant") : "",
        el("br"), far === undefined ? el("code", {}, short(name, 300)) : el("button", { type: "button", class: "quiet", title: way === "in" ? "Go to its producer" : "Go to its first reader", onclick: () => this.select(far, s, true) }, el("code", {}, short(name, 300))),
        dev ? el("div", { class: "soft" }, `deviation ${numberText(dev[0])}${dev[1] ? `, spread ${numberText(dev[1])}` : ""}`) : ""));
  },

  help() {
    const keys = [["↑ ↓", "walk along the graph"], ["← →", "to the partner in A, in B"], ["n p", "next, previous difference"], ["/", "search; Enter for the next hit"],
      ["Enter", "fold the group around the node"], ["o c", "unfold all, fold all"], ["s", "show or hide shape ops"], ["+ − 0", "zoom, fit (Ctrl + wheel too)"], ["f", "fill the window"], ["Esc", "close"]];
    this.g.selected = null;
    this.panel.replaceChildren(
      el("div", { class: "panelhead" }, el("h3", {}, "Keys"), el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.select(null) }, "×")),
      el("dl", {}, ...keys.flatMap(([k, text]) => [el("dt", {}, el("kbd", {}, k)), el("dd", {}, text)])),
      el("p", { class: "soft" }, this.g.sides.length > 1
        ? "Both graphs stand on the same rows: a node and its partner are opposite each other. ⇄ moved layout, ≠ values differ, ≈ behind a rounded constant, − only in A, + only in B."
        : "Repeated blocks are folded into one box; click it to open it."));
    this.panel.hidden = false;
  },
});
