// The state of one drawing: folds, where everything stands, what is selected. No DOM here.
const BAND = 16; // spreads of rounding, as in charts.py
const BOX = { w: 132, h: 38 }, PITCH = 146, ROW = 60, FOLD = { w: 248, h: 50 }, HEAD = 30, GAP = 12, GUTTER = 84;
const CALM = new Set(["same", "plain"]);
const GLYPH = { same: "", plain: "", layout: "⇄", different: "≠", rounded: "≈", a: "−", b: "+" };
const WORDS = {
  same: "same", layout: "moved layout", different: "values differ", rounded: "behind a rounded constant", a: "only in A", b: "only in B", plain: "",
};

const BRIEF = { same: "same", layout: "moved", different: "differ", rounded: "rounded", a: "A only", b: "B only" };

class Drawing {
  constructor(data, graphs) {
    this.data = data;
    this.graphs = graphs;
    this.sides = graphs.b ? ["a", "b"] : ["a"];
    this.verts = data.verts.map(([kind, a, b, status, mark, other], i) => ({ i, kind, a, b, status, mark, other }));
    this.folds = [];
    this.atomOf = [];
    data.atoms.forEach((atom, i) => atom.v.forEach((v) => { this.atomOf[v[0]] = [i, v]; }));
    this.parents = [];
    this.walk(data.tree, []);
    this.byNode = { a: new Map(), b: new Map() };
    this.nodes = { a: new Map(), b: new Map() };
    for (const s of this.sides) for (const n of graphs[s].nodes) this.nodes[s].set(n.id, n);
    for (const v of this.verts) for (const s of this.sides) if (v.kind === "n" && v[s] !== null) this.byNode[s].set(v[s], v.i);
    this.next = { a: new Map(), b: new Map() };
    this.prev = { a: new Map(), b: new Map() };
    const push = (map, k, x) => (map.has(k) ? map.get(k).push(x) : map.set(k, [x]));
    for (const s of this.sides) for (const [u, v] of data.edges[s]) {
      push(this.next[s], u, v);
      push(this.prev[s], v, u);
    }
    this.selected = null;
    this.side = "a";
    this.layout();
  }

  walk(items, chain) {
    for (const item of items) {
      if ("atom" in item) {
        this.parents[item.atom] = chain;
      } else {
        item.id = this.folds.length;
        item.has = { a: false, b: false };
        this.folds.push(item);
        this.walk(item.items, [...chain, item]);
      }
    }
    for (const item of items) {
      if (!("atom" in item)) continue;
      for (const [v] of this.data.atoms[item.atom].v) for (const f of chain) {
        if (this.verts[v].a !== null) f.has.a = true;
        if (this.verts[v].b !== null) f.has.b = true;
      }
    }
  }

  layout() {
    this.items = [];
    this.at = new Array(this.verts.length);
    const low = { a: 0, b: 0 }, high = { a: 0, b: 0 };
    let y = GAP;
    const widen = (s, x, half) => {
      low[s] = Math.min(low[s], x - half);
      high[s] = Math.max(high[s], x + half);
    };
    const lay = (items, depth) => {
      for (const item of items) {
        if ("atom" in item) {
          const atom = this.data.atoms[item.atom];
          for (const [v, row, a, b] of atom.v) {
            const spot = { y: y + row * ROW + ROW / 2, a: null, b: null, top: y };
            if (a !== null) widen("a", (spot.a = a * PITCH), BOX.w / 2 + depth * 8);
            if (b !== null) widen("b", (spot.b = b * PITCH), BOX.w / 2 + depth * 8);
            this.at[v] = spot;
          }
          this.items.push({ atom: item.atom, y, h: atom.rows * ROW });
          y += atom.rows * ROW;
        } else if (!item.open) {
          const h = FOLD.h + 2 * GAP;
          const spot = { y: y + h / 2, a: item.has.a ? 0 : null, b: item.has.b ? 0 : null, fold: item };
          for (const s of this.sides) if (item.has[s]) widen(s, 0, FOLD.w / 2 + 6);
          this.cover(item, spot);
          this.items.push({ fold: item, y, h, depth });
          y += h;
        } else {
          const head = { head: item, y, h: HEAD, depth };
          this.items.push(head);
          y += HEAD;
          lay(item.items, depth + 1);
          y += GAP;
          head.end = y - GAP / 2;
        }
      }
    };
    lay(this.data.tree, 0);
    this.height = y + GAP;
    this.extent = { low, high };
    this.need = 36 + Math.max(...this.sides.map((s) => high[s] - low[s]));
    this.frame(this.need);
  }

  // Both sides in columns of one width, so that the eye finds the same place on the other side.
  frame(column) {
    const { low, high } = this.extent;
    this.cx = {};
    this.edge = {};
    this.sides.forEach((s, i) => {
      const left = i * (column + GUTTER);
      this.cx[s] = left + (column - low[s] - high[s]) / 2;
      this.edge[s] = [left, left + column];
      this.width = left + column;
    });
    this.routes();
  }

  cover(fold, spot) {
    for (const item of fold.items) {
      if ("atom" in item) for (const [v] of this.data.atoms[item.atom].v) this.at[v] = spot;
      else this.cover(item, spot);
    }
  }

  // Every visible edge once: {key, s, u, v, y1, y2, d, far}
  routes() {
    this.lines = [];
    const seen = new Set();
    for (const s of this.sides) for (const [u, v, bends] of this.data.edges[s]) {
      const p = this.at[u], q = this.at[v];
      if (p === q || p[s] === null || q[s] === null) continue;
      const key = s + (p.fold ? "f" + p.fold.id : u) + ">" + (q.fold ? "f" + q.fold.id : v);
      if (seen.has(key)) continue;
      seen.add(key);
      const x = this.cx[s];
      const points = [[x + p[s], p.y + (p.fold ? FOLD.h : BOX.h) / 2]];
      if (bends && !q.fold) {
        for (const [bx, row] of bends) {
          const by = q.top + row * ROW;
          if (by + 8 > points[0][1]) points.push([x + bx * PITCH, by + 10], [x + bx * PITCH, by + ROW - 10]);
        }
      }
      points.push([x + q[s], q.y - (q.fold ? FOLD.h : BOX.h) / 2]);
      const y1 = points[0][1], y2 = points[points.length - 1][1];
      this.lines.push({ key, s, u, v, y1, y2, d: curve(points), far: points.length === 2 && y2 - y1 > 2.5 * ROW });
    }
  }

  reveal(v) {
    let changed = false;
    const spot = this.atomOf[v];
    for (const fold of spot ? this.parents[spot[0]] : []) {
      changed ||= !fold.open;
      fold.open = true;
    }
    if (changed) this.layout();
    return changed;
  }

  openAll(open) {
    for (const fold of this.folds) fold.open = open;
    this.layout();
  }

  node(v, s) {
    const vert = this.verts[v];
    return vert.kind === "n" && vert[s] !== null ? this.nodes[s].get(vert[s]) : null;
  }

  // A node that is not drawn (a Constant): the first vertex that reads it.
  reader(s, id) {
    const made = this.nodes[s]?.get(id)?.outputs || [];
    const node = made.length ? this.graphs[s].nodes.find((n) => n.inputs.some((name) => made.includes(name))) : undefined;
    return node && this.byNode[s].get(node.id);
  }

  tensorNames(v, s) {
    const vert = this.verts[v];
    if (vert[s] === null) return [];
    if (vert.kind === "i") return [this.graphs[s].inputs[vert[s]]];
    if (vert.kind === "o") return [this.graphs[s].outputs[vert[s]]];
    return this.node(v, s).outputs;
  }

  label(v, s) {
    const vert = this.verts[v];
    if (vert.kind !== "n") return this.tensorNames(v, s)[0] || (vert.kind === "i" ? "input" : "output");
    return this.node(v, s).op_type;
  }

  text(v) {
    const vert = this.verts[v];
    if (!vert.text) {
      const parts = [];
      for (const s of this.sides) if (vert[s] !== null) {
        const n = this.node(v, s);
        parts.push(n ? `${n.op_type} ${n.name} ${n.module || ""}` : "", ...this.tensorNames(v, s));
      }
      vert.text = parts.join(" ").toLowerCase();
    }
    return vert.text;
  }

  // Best first: the op itself, then names.
  search(query) {
    const q = query.trim().toLowerCase();
    if (!q) return [];
    const hits = this.verts.filter((v) => this.text(v.i).includes(q)).map((v) => v.i);
    const exact = (v) => this.sides.some((s) => this.verts[v][s] !== null && this.label(v, s).toLowerCase() === q);
    return [...hits.filter(exact), ...hits.filter((v) => !exact(v))];
  }
}

function curve(points) {
  let d = `M${points[0][0].toFixed(1)} ${points[0][1].toFixed(1)}`;
  for (let i = 1; i < points.length; i++) {
    const [x1, y1] = points[i - 1], [x2, y2] = points[i];
    const m = Math.min((y2 - y1) / 2, 46);
    d += x1 === x2 ? `V${y2.toFixed(1)}` : `C${x1.toFixed(1)} ${(y1 + m).toFixed(1)} ${x2.toFixed(1)} ${(y2 - m).toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}`;
  }
  return d;
}
