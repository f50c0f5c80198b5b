// The rest of the page: tables that sort and filter, views that unpack when asked for, links.
const stages = new Map();

async function startStage(root) {
  if (stages.has(root)) return stages.get(root);
  const ready = (async () => {
    try {
      const [data, store] = await Promise.all([load(root.dataset.block), load(root.dataset.store)]);
      const drawing = root.dataset.key ? data[root.dataset.key] : data;
      const graphs = { a: store[root.dataset.ga], b: root.dataset.gb ? store[root.dataset.gb] : null };
      // A drawing is data of the file: its own copy, so that folding one view leaves another alone.
      return new Stage(root, drawing.drawings.map((d) => new Drawing(structuredClone(d), graphs)), drawing.deviations);
    } catch (error) {
      root.replaceChildren(el("p", { class: "soft pad" }, `The graphs could not be drawn (${error.message}). Verdict and tables are complete without them.`));
      throw error;
    }
  })();
  stages.set(root, ready);
  return ready;
}

const watcher = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) if (isIntersecting) { watcher.unobserve(target); startStage(target); }
}, { rootMargin: "600px" });

function enliven(root) {
  $$(".stage[data-block]", root).forEach((stage) => watcher.observe(stage));
  $$("table.sortable", root).forEach(sortable);
  $$("table.matrix", root).forEach(named);
  $$("[data-filters]", root).forEach(filterable);
  for (const picture of $$(".chart.region", root)) picture.parentNode.scrollLeft = (picture.parentNode.scrollWidth - picture.parentNode.clientWidth) / 2;
  $$("button[data-copy]", root).forEach((b) => { b.hidden = false; b.addEventListener("click", () => copy($("code", b.parentNode).textContent)); });
}

function sortable(table) {
  $$("thead th", table).forEach((th, column) => {
    const button = el("button", { type: "button", class: "sorter" }, ...th.childNodes);
    th.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      $$("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column]?.dataset.sort ?? row.cells[column]?.textContent.trim() ?? "";
      const order = (x, y) => { const a = value(x), b = value(y), n = Number(a) - Number(b); return Number.isNaN(n) || a === "" || b === "" ? a.localeCompare(b) : n; };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((x, y) => (down ? -order(x, y) : order(x, y))));
      const matrix = table.matches(".variants") && $(".matrix", table.closest("[data-views]"));
      if (matrix) arrange(matrix, [...body.rows].map((row) => row.cells[0].textContent));
    });
  });
}

// What each cell of a matrix stands for, from the heads of its row and column.
function named(table) {
  const heads = $$("thead th", table).map((th) => th.title);
  for (const row of table.tBodies[0].rows) for (const cell of row.cells) {
    const link = $(".cell", cell);
    if (!link) continue;
    link.title = `${row.cells[0].title} and ${heads[cell.cellIndex - 1]}: ${link.classList[1].slice(2)}`;
    link.setAttribute("aria-label", link.title);
  }
}

// Rows and columns of a matrix in another order of their numbers.
function arrange(matrix, order) {
  const body = matrix.tBodies[0], columns = [...matrix.tHead.rows[0].cells].map((th) => th.textContent);
  const rows = new Map([...body.rows].map((row) => [$(".nth", row).textContent, row]));
  for (const row of [matrix.tHead.rows[0], ...rows.values()]) {
    const cells = [...row.cells];
    row.append(...order.map((n) => cells[columns.indexOf(n)]));
  }
  body.append(...order.map((n) => rows.get(n)));
}

function filterable(box) {
  const input = $("input", box), picks = $$("button[data-pick]", box), picked = new Set();
  const target = document.getElementById(box.dataset.filters);
  const apply = () => {
    const q = input ? input.value.trim().toLowerCase() : "";
    for (const item of $$(".cell, tr[data-verdict]", target)) {
      const [text, verdict] = item.matches("tr") ? [item.textContent, item.dataset.verdict] : [item.title, [...item.classList].find((c) => c.startsWith("v-"))?.slice(2)];
      const fits = (!q || text.toLowerCase().includes(q)) && (!picked.size || picked.has(verdict));
      item.classList.toggle(item.matches("tr") ? "gone" : "dim", !fits);
    }
  };
  input?.addEventListener("input", apply);
  picks.forEach((b) => b.addEventListener("click", () => {
    if (!picked.delete(b.dataset.pick)) picked.add(b.dataset.pick);
    b.setAttribute("aria-pressed", picked.has(b.dataset.pick));
    apply();
  }));
  box.hidden = false;
}

// A view that is kept packed: its HTML was made, escaped, by the same templates as the rest of the page.
async function showView(id) {
  const links = $$(`[data-views] a[href="#${CSS.escape(id)}"]`), index = links[0]?.closest("[data-views]");
  const html = index && (await load(index.dataset.views))[id];
  if (html === undefined) return null;
  const holder = document.getElementById(index.dataset.into);
  if (holder.dataset.shown !== id) {
    stages.forEach((_, root) => holder.contains(root) && stages.delete(root));
    holder.innerHTML = html;
    holder.dataset.shown = id;
    holder.hidden = false;
    $$("[aria-current]", document).forEach((n) => n.removeAttribute("aria-current"));
    links.forEach((link) => link.setAttribute("aria-current", "true"));
    enliven(holder);
  }
  return holder;
}

async function follow() {
  const { view, node } = place();
  let holder = document;
  if (view) {
    holder = await showView(view);
    const target = holder || document.getElementById(view);
    if (!target) return;
    target.scrollIntoView();
    holder ||= document;
  }
  if (!node) return;
  const root = $(".stage[data-block]", holder);
  if (!root) return;
  root.scrollIntoView({ block: "nearest" });
  const stage = await startStage(root);
  if (!stage.go(node)) toast("No such node in this file");
}

theme();
enliven(document);
addEventListener("hashchange", () => follow().catch(() => {}));
follow().catch(() => {});
document.addEventListener("click", (e) => {
  const link = e.target.closest("[data-views] a[href^='#']");
  if (link && location.hash === link.getAttribute("href")) follow().catch(() => {});
  const node = e.target.closest("a[href*='node=']");
  if (node && location.hash === node.getAttribute("href")) follow().catch(() => {});
});
document.documentElement.classList.add("js");
// What stands below the first screen is drawn too, once there is time: it may be printed.
addEventListener("load", () => (window.requestIdleCallback || setTimeout)(() => $$(".stage[data-block]").forEach((root) => startStage(root).catch(() => {}))));
