// Text reaches the page through `textContent` and attributes only.
const make = (space) => (tag, attributes = {}, ...children) => {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
};
const el = make(null);
const svg = make("http://www.w3.org/2000/svg");
const byId = (id) => document.getElementById(id);

// A sentence with code in backticks as nodes.
const prose = (text) => text.split(/`([^`]*)`/).map((part, i) => (i % 2 === 1 ? el("code", {}, part) : part));

const db = (x) => (x === null ? "–" : x.toFixed(1));
const figure = (x) => {
  if (x === null) return "–";
  const size = Math.abs(x);
  if (x === 0) return "0";
  if (size < 1e-3 || size >= 1e6) return x.toExponential(2).replace("e+", "e");
  return x.toFixed(Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(size)))));
};
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const plural = (n, one) => `${grouped(n)} ${one}${n === 1 ? "" : "s"}`;
const bytes = (n) => {
  if (n === null) return "–";
  if (n < 1000) return `${n} bytes`;
  let unit = -1;
  for (; n >= 1000 && unit < 3; unit++) n /= 1000;
  return `${n.toFixed(1)} ${["kB", "MB", "GB", "TB"][unit]}`;
};

// Runs `draw` with the width of an element, now and whenever it changes.
const drawn = (element, draw) => {
  let last = 0;
  const again = () => {
    const width = Math.round(element.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  };
  new ResizeObserver(again).observe(element);
  again();
};

// A screen reader is told what a button did.
const announcer = el("p", { class: "unseen", role: "status" });
document.body.append(announcer);

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.setAttribute("aria-label", `Copy ${button.dataset.copy}`);
  button.addEventListener("click", async () => {
    const done = await toClipboard(button.dataset.copy);
    button.textContent = done ? "Copied" : "Not copied";
    announcer.textContent = done ? "Copied" : "Not copied";
    button.focus();
    setTimeout(() => {
      button.textContent = "Copy";
      announcer.textContent = "";
    }, 1500);
  });
}

function sortBy(table, column, button) {
  const head = button.closest("th");
  const before = head.getAttribute("aria-sort");
  // Words begin at A, numbers with the greatest.
  const up = before ? before === "descending" : !head.classList.contains("n");
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => {
    const cell = row.cells[column];
    if (cell.dataset.key !== undefined) return Number(cell.dataset.key);
    return cell.textContent === "" ? null : cell.textContent;
  };
  const order = (a, b) => {
    if (a === b) return 0;
    // What is not known comes last, whichever way is up.
    if (a === null) return 1;
    if (b === null) return -1;
    const both = typeof a === "number" && typeof b === "number";
    const less = both ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return up ? less : -less;
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].map((row) => [key(row), row]).sort((a, b) => order(a[0], b[0])).map((pair) => pair[1]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = el("button", { type: "button", class: "sort" }, ...head.childNodes);
    button.addEventListener("click", () => sortBy(table, column, button));
    head.append(button);
  });
}

// Printed pages show what folds.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    folded.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const folded of document.querySelectorAll("details[data-folded]")) {
    folded.open = false;
    delete folded.dataset.folded;
  }
});

// The section in view is marked in the navigation.
{
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
    const current = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-15% 0px -60% 0px" });
  for (const id of links.keys()) if (byId(id)) watch.observe(byId(id));
}
