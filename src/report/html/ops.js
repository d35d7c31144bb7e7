const ROW = 36;

function explorer(root, { ops, total }) {
  const lanes = lanesOf(ops);
  const wanted = { text: "", kind: "", path: "", fn: "", order: "program", states: new Set() };
  const searched = ops.map((op) => [op.name, op.kind, op.type, op.paired, ...op.place].join("\n").toLowerCase());
  root.style.setProperty("--gutter", `${LANE * (1 + Math.max(...lanes.map((l) => Math.max(l.lane, ...l.passing)))) + 6}px`);
  let shown = ops;
  let selected = null;

  const counted = (values) => {
    const counts = new Map();
    for (const v of values) if (v) counts.set(v, (counts.get(v) ?? 0) + 1);
    return counts;
  };
  const prefixes = (path) => {
    const parts = path.split(/(?<=[./])/);
    return parts.slice(0, 4).map((_, i) => parts.slice(0, i + 1).join("").replace(/[./]+$/, "")).filter((p) => p !== "");
  };
  const choice = (name, all, counts, field) => {
    const options = [...counts].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true })).slice(0, 400);
    if (options.length < 2) return null;
    const node = el("select", { "aria-label": name, onchange: () => ((wanted[field] = node.value), filter()) },
      el("option", { value: "" }, all),
      ...options.map(([value, n]) => el("option", { value }, `${value} (${n})`)));
    return node;
  };
  // Of a model that is compared with nothing, there are no errors to show.
  const judged = ops.some((op) => op.state !== "");
  root.classList.toggle("unjudged", !judged);
  const errors = judged ? { own: "worst of their own first", snr: "worst in total first" } : {};
  const orders = { program: "in program order", ...errors, macs: "most work first" };
  const order = el("select", { "aria-label": "Order", onchange: () => ((wanted.order = order.value), filter()) },
    ...Object.entries(orders).map(([value, text]) => el("option", { value }, text)));
  const search = el("input", {
    type: "search", placeholder: "Search names, types, places", "aria-label": "Search ops", autocomplete: "off", spellcheck: "false",
    oninput: () => ((wanted.text = search.value.trim().toLowerCase()), filter()),
    onkeydown: (event) => {
      if (event.key !== "ArrowDown" && event.key !== "Enter") return;
      event.preventDefault();
      list.focus();
      if (shown.length > 0 && !shown.includes(selected)) choose(shown[0]);
    },
  });
  const paths = counted(ops.flatMap((op) => [...new Set(prefixes(op.path))]));
  for (const [path, n] of [...paths]) if (n < 2 || n === ops.length) paths.delete(path);
  const chips = Object.entries(STATES).map(([state, { mark, about }]) => {
    const n = ops.filter((op) => op.state === state).length;
    if (n === 0) return null;
    const button = el("button", { type: "button", class: "state", "data-state": state, "aria-pressed": "false", title: about },
      el("span", { class: "glyph", "aria-hidden": "true" }, mark), ` ${state} `, el("span", { class: "quiet" }, grouped(n)));
    button.addEventListener("click", () => {
      wanted.states[wanted.states.has(state) ? "delete" : "add"](state);
      button.setAttribute("aria-pressed", String(wanted.states.has(state)));
      filter();
    });
    return button;
  });
  const status = el("p", { class: "status quiet", role: "status" });
  const canvas = el("div", { class: "rows", role: "presentation" });
  const list = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Ops" }, canvas);
  const details = el("div", { class: "details", role: "region", "aria-label": "The selected op", tabindex: "0" });

  function filter() {
    const terms = wanted.text.split(/\s+/).filter((t) => t !== "");
    const under = (op) => op.path === wanted.path || (op.path.startsWith(wanted.path) && /[./]/.test(op.path[wanted.path.length]));
    shown = ops.filter((op) =>
      (wanted.states.size === 0 || wanted.states.has(op.state))
      && (wanted.kind === "" || op.kind === wanted.kind)
      && (wanted.fn === "" || op.fn === wanted.fn)
      && (wanted.path === "" || under(op))
      && terms.every((t) => searched[op.index].includes(t)));
    const key = { own: (op) => op.culprit?.own ?? op.own ?? Infinity, snr: (op) => op.snr ?? Infinity, macs: (op) => -(op.macs ?? 0) }[wanted.order];
    if (key) shown = shown.map((op) => [key(op), op]).sort((a, b) => (a[0] === b[0] ? 0 : a[0] - b[0])).map((pair) => pair[1]);
    const cut = total > ops.length ? ` with the greatest errors, of ${grouped(total)}` : "";
    status.textContent = shown.length === ops.length ? `${plural(ops.length, "op")}${cut}` : `${grouped(shown.length)} of ${plural(ops.length, "op")}${cut}`;
    canvas.style.height = `${shown.length * ROW}px`;
    list.scrollTop = 0;
    paint(true);
    if (selected && shown.includes(selected)) reveal();
  }

  // Only rows in view are elements.
  let window_ = [-1, -1];
  function paint(force) {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 8);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 8);
    if (!force && first === window_[0] && last === window_[1]) return;
    window_ = [first, last];
    const whole = shown === ops || (shown.length === ops.length && wanted.order === "program");
    root.classList.toggle("whole", whole);
    const rows = [];
    for (let i = first; i < last; i++) rows.push(row(shown[i], i, whole));
    if (rows.length === 0) {
      canvas.replaceChildren(el("p", { class: "none", role: "option", "aria-selected": "false" }, "No op is like that."));
    } else canvas.replaceChildren(...rows);
    const there = selected && byId(`op-${selected.index}`);
    if (there) list.setAttribute("aria-activedescendant", there.id);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(op, i, whole) {
    const { mark } = STATES[op.state] ?? UNKNOWN;
    const worst = op.snr ?? op.own;
    // 0 dB fills the bar, 100 dB empties it.
    const bar = worst === null ? 0 : Math.max(2, Math.min(100, 100 - worst));
    return el("div", {
      id: `op-${op.index}`, role: "option", class: "row", style: `top:${i * ROW}px`, "data-state": op.state,
      "aria-selected": String(op === selected), "aria-setsize": shown.length, "aria-posinset": i + 1,
      onclick: () => choose(op),
    },
    whole ? laneRow(lanes[op.index], ROW, op.state) : null,
    el("span", { class: "glyph", title: op.state }, mark, el("span", { class: "unseen" }, ` ${op.state}, `)),
    el("span", { class: "name" }, op.name),
    el("span", { class: "kind" }, op.kind),
    el("span", { class: "path" }, el("bdi", {}, op.path)),
    el("span", { class: "error" }, el("span", { class: "level", style: `width:${bar}%` })),
    el("span", { class: "db" }, worst === null ? (op.state === "exact" ? "equal" : "–") : `${db(worst)} dB`));
  }

  function reveal() {
    const i = shown.indexOf(selected);
    if (i < 0) return;
    const [top, bottom] = [i * ROW, (i + 1) * ROW];
    if (top < list.scrollTop) list.scrollTop = top - ROW;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom + ROW - list.clientHeight;
    paint(true);
  }

  function choose(op) {
    selected = op;
    reveal();
    paint(true);
    details.replaceChildren(...describe(op));
    details.scrollTop = 0;
    for (const told of onSelect) told(op);
  }

  // From elsewhere in the page: what hides the op is taken back.
  select = (index, away) => {
    const op = ops[index];
    if (!op) return;
    if (!shown.includes(op)) {
      Object.assign(wanted, { text: "", kind: "", path: "", fn: "" });
      wanted.states.clear();
      for (const field of root.querySelectorAll(".controls select, .controls input")) if (field !== order) field.value = "";
      for (const chip of chips) chip?.setAttribute("aria-pressed", "false");
      filter();
    }
    choose(op);
    if (away) {
      byId("ops").scrollIntoView();
      list.focus({ preventScroll: true });
    }
  };

  function describe(op) {
    const link = (index) => el("button", { type: "button", class: "op", onclick: () => select(index) }, ops[index].name);
    const links = (indices) => {
      const all = indices.slice(0, 40).map((i) => el("li", {}, link(i), " ", el("span", { class: "quiet" }, ops[i].kind)));
      if (indices.length > 40) all.push(el("li", { class: "quiet" }, `and ${indices.length - 40} more`));
      return all.length === 0 ? null : el("ul", { class: "links" }, ...all);
    };
    const facts = (pairs) => {
      const rows = pairs.filter(([, v]) => v !== null && v !== "" && v !== undefined).map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v)));
      return rows.length === 0 ? null : el("dl", { class: "pairs" }, ...rows);
    };
    const code = (text) => (text ? el("code", {}, text) : null);
    const decibel = (x) => (x === null || x === undefined ? null : `${db(x)} dB`);
    const parts = (title, ...nodes) => (nodes.some((n) => n) ? [el("h4", {}, title), ...nodes.filter((n) => n)] : []);
    const { mark, about } = STATES[op.state] ?? UNKNOWN;
    const range = op.range;
    const holder = el("div", { class: "plot" });
    if (range?.bins.length > 0) {
      drawn(holder, (width) => holder.replaceChildren(histogram(range.bins, width, 120, `Values of ${op.name} by magnitude`)));
    }
    return [
      el("h3", {}, op.name),
      el("p", { class: "what" }, el("code", {}, op.kind), " ", judged ? el("span", { class: "state-of", "data-state": op.state },
        el("span", { class: "glyph", "aria-hidden": "true" }, mark), ` ${op.state}`) : "", about && about !== op.state ? `: ${about}` : ""),
      op.culprit ? el("p", { class: "culprit" }, [op.culprit.why, op.culprit.note].filter((t) => t).join(": ")) : null,
      facts([
        ["Result", code(op.type)],
        ["Function", code(op.fn)],
        ["Depth", String(op.depth)],
        ["Multiplications", op.macs === null ? null : grouped(op.macs)],
        ["Compared with", code(op.paired)],
      ]),
      ...parts("In the source", op.place.length === 0 ? null : el("ol", { class: "place" }, ...op.place.map((p) => el("li", {}, ...prose(p))))),
      ...parts("Error", facts([
        ["Total", decibel(op.snr)],
        ["Its own", decibel(op.culprit?.own ?? op.own)],
        ["Explained by its type", decibel(op.culprit?.explained ?? op.explained)],
        ["Worst output, repaired", op.culprit?.repaired >= 999 ? "exact" : decibel(op.culprit?.repaired)],
        ["Max abs", op.maxAbs === null ? null : figure(op.maxAbs)],
      ])),
      ...parts("Values", range?.bins.length > 0 ? holder : null, range ? facts([
        ["Least", range.min === null ? null : figure(range.min)],
        ["Greatest", range.max === null ? null : figure(range.max)],
        ["Least magnitude", range.least === null ? null : figure(range.least)],
        ["Zeros", range.zeros === null ? null : grouped(range.zeros)],
        ["Not finite", range.nonFinite === null ? null : grouped(range.nonFinite)],
      ]) : null),
      ...parts("Reads", links(op.reads)),
      ...parts("Read by", links(op.readers)),
      ...parts("Weights", ...op.weights.slice(0, 20).map((w) => facts([
        [w.name, [w.scheme || "as it was", w.bits === null ? null : `${w.bits.toFixed(2)} bits`, bytes(w.size),
          w.snr === null ? null : `${db(w.snr)} dB`].filter((t) => t).join(", ")],
      ]))),
    ].filter((n) => n);
  }

  const page = () => Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  list.addEventListener("keydown", (event) => {
    const at = shown.indexOf(selected);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page(), PageUp: -page(), Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Enter") {
      event.preventDefault();
      details.focus();
    } else if (step !== undefined && shown.length > 0 && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      choose(shown[Math.max(0, Math.min(shown.length - 1, at < 0 && step > 0 && step < Infinity ? 0 : at + step))]);
    }
  });
  details.addEventListener("keydown", (event) => {
    if (event.key === "Escape") list.focus();
  });
  list.addEventListener("scroll", () => requestAnimationFrame(() => paint(false)), { passive: true });

  root.append(
    el("div", { class: "controls" }, search,
      choice("Type of op", "all types", counted(ops.map((op) => op.kind)), "kind"),
      choice("Module", "all modules", paths, "path"),
      choice("Function", "all functions", counted(ops.map((op) => op.fn)), "fn"),
      order),
    el("div", { class: "chips", role: "group", "aria-label": "States of ops" }, ...chips.filter((c) => c)),
    status,
    el("div", { class: "panes" }, list, details));
  root.hidden = false;
  root.parentElement.classList.add("scripted");
  filter();
  new ResizeObserver(() => paint(false)).observe(list);
  const first = ops.find((op) => op.culprit) ?? ops.reduce((a, b) => ((b.own ?? Infinity) < (a.own ?? Infinity) ? b : a));
  choose(first);
  for (const name of document.querySelectorAll("code[data-op]")) {
    const op = ops.find((o) => o.original === Number(name.dataset.op));
    if (op) name.replaceWith(el("button", { type: "button", class: "op", onclick: () => select(op.index, true) }, op.name));
  }
}

if (report && byId("explorer")) explorer(byId("explorer"), report);
