const line = (x1, y1, x2, y2, cls) => svg("line", { x1, y1, x2, y2, class: cls });
const label = (x, y, cls, text, anchor = "start") => svg("text", { x, y, class: cls, "text-anchor": anchor }, text);
const nice = (least) => [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000].find((s) => s >= least) ?? least;

// Errors of ops against depth: the line is the worst total of each depth, dots are errors of ops of their own.
function depthPlot(root, { ops, tolerance }) {
  const known = ops.filter((op) => op.snr !== null || op.own !== null);
  if (known.length === 0) return;
  root.hidden = false;
  const swatch = (name, ...marks) => el("li", {}, svg("svg", { viewBox: "0 0 24 12", width: 24, height: 12, "aria-hidden": "true" }, ...marks), name);
  const legend = el("ul", { class: "legend" },
    swatch("total error", svg("path", { d: "M1 9L8 6L15 8L23 3", class: "total" })),
    swatch("own error", svg("path", { d: "M6 8h0M13 4h0M19 8h0", class: "own" })));
  if (ops.some((op) => op.culprit)) {
    legend.append(swatch("culprit, and how far beyond what its type explains",
      svg("path", { d: "M8 2l8 8m0 -8l-8 8", class: "culprit" })));
  }
  const holder = el("div", { class: "plot" });
  root.prepend(legend, holder);
  const values = known.flatMap((op) => [op.snr, op.own]).filter((v) => v !== null);
  if (tolerance !== null) values.push(tolerance);
  const low = Math.floor(Math.max(-20, Math.min(0, ...values)) / 10) * 10;
  const high = Math.ceil(Math.min(160, Math.max(60, ...values) + 5) / 20) * 20;
  const deepest = Math.max(1, ...ops.map((op) => op.depth));
  let mark = null;
  let place = null;

  function draw(width) {
    const height = Math.max(220, Math.min(340, width * 0.42));
    const [left, right, top, bottom] = [46, 14, 16, 34];
    const x = (depth) => left + (depth / deepest) * (width - left - right);
    const y = (snr) => top + ((Math.min(high, Math.max(low, snr)) - low) / (high - low)) * (height - top - bottom);
    const description = `Error of ${plural(known.length, "op")} against depth, 0 to ${deepest}. `
      + `The list of ops has every number.`;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description });
    for (let snr = Math.ceil(low / 20) * 20; snr <= high; snr += 20) {
      picture.append(line(left, y(snr), width - right, y(snr), "grid"));
      picture.append(label(left - 8, y(snr) + 4, "tick", snr === 0 ? "0 dB" : `−${snr}`.replace("−-", ""), "end"));
    }
    const step = nice(deepest / Math.max(2, width / 110));
    for (let d = 0; d <= deepest; d += step) picture.append(label(x(d), height - 14, "tick", String(d), "middle"));
    picture.append(label(width - right, height - 1, "tick", "depth", "end"));
    if (tolerance !== null) {
      picture.append(line(left, y(tolerance), width - right, y(tolerance), "tolerance"));
      picture.append(label(left, y(tolerance) - 5, "tick", "tolerance of outputs", "start"));
    }
    const worst = new Map();
    for (const op of known) {
      if (op.snr !== null) worst.set(op.depth, Math.min(op.snr, worst.get(op.depth) ?? Infinity));
    }
    const points = [...worst].sort((a, b) => a[0] - b[0]).map(([d, snr]) => `${x(d).toFixed(1)} ${y(snr).toFixed(1)}`);
    if (points.length > 1) picture.append(svg("path", { d: `M${points.join("L")}`, class: "total" }));
    // One path for all dots: thousands of elements would be slow.
    const dots = (of) => of.map((op) => `M${x(op.depth).toFixed(1)} ${y(op.own).toFixed(1)}h0`).join("");
    picture.append(svg("path", { d: dots(known.filter((op) => op.own !== null && !op.culprit)), class: "own" }));
    let lastX = -Infinity;
    let level = 0;
    for (const op of ops.filter((op) => op.culprit)) {
      const snr = op.culprit.own ?? op.own ?? op.snr ?? low;
      const explained = op.culprit.explained ?? op.explained;
      const [cx, cy] = [x(op.depth), y(snr)];
      if (explained !== null) picture.append(line(cx, y(explained), cx, cy, "gap"));
      picture.append(svg("path", { d: `M${cx - 5} ${cy - 5}l10 10m0 -10l-10 10`, class: "culprit" }));
      level = cx - lastX < 130 ? level + 1 : 0;
      lastX = cx;
      // The side with more room, and as much of the name as fits.
      const beyond = cx - left > width - right - cx && cx + 10 + op.name.length * 7.4 > width;
      const fits = Math.max(6, Math.floor((beyond ? cx - 10 : width - cx - 10) / 7.4));
      const short = op.name.length > fits ? `…${op.name.slice(1 - fits)}` : op.name;
      if (level < 4) picture.append(label(cx + (beyond ? -10 : 10), cy + 4 + level * 15, "name", short, beyond ? "end" : "start"));
    }
    mark = svg("circle", { r: 7, class: "selected", visibility: "hidden" });
    picture.append(mark);
    place = (op) => {
      const snr = op.own ?? op.snr;
      mark.setAttribute("visibility", snr === null ? "hidden" : "visible");
      if (snr === null) return;
      mark.setAttribute("cx", x(op.depth));
      mark.setAttribute("cy", y(snr));
    };
    const near = (event) => {
      const box = picture.getBoundingClientRect();
      const [px, py] = [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
      let best = null;
      let least = 400;
      for (const op of known) {
        for (const snr of [op.own, op.snr]) {
          const far = snr === null ? Infinity : (x(op.depth) - px) ** 2 + (y(snr) - py) ** 2;
          if (far < least) [best, least] = [op, far];
        }
      }
      return best;
    };
    picture.addEventListener("pointermove", (event) => {
      const op = near(event);
      picture.classList.toggle("near", op !== null);
      caption.textContent = op ? `${op.name} (${op.kind}): own ${db(op.own)} dB, total ${db(op.snr)} dB` : "";
    });
    picture.addEventListener("click", (event) => {
      const op = near(event);
      if (op) select(op.index, true);
    });
    const caption = el("p", { class: "hover", "aria-hidden": "true" });
    holder.replaceChildren(picture, caption);
  }
  drawn(holder, draw);
  onSelect.push((op) => place?.(op));
}

// Counts by binary exponent against what half precision holds. `bins` have an exponent and a count.
function histogram(bins, width, height, name) {
  const first = Math.min(HALF.least - 2, ...bins.map((b) => b.exponent));
  const last = Math.max(HALF.most + 2, ...bins.map((b) => b.exponent + 1));
  const [left, right, top, bottom] = [8, 8, 20, 22];
  const x = (e) => left + ((e - first) / (last - first)) * (width - left - right);
  const base = height - bottom;
  const most = Math.max(1, ...bins.map((b) => Math.log2(b.count + 1)));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  picture.append(svg("rect", {
    x: x(HALF.normal), y: top, width: x(HALF.most) - x(HALF.normal), height: base - top, class: "band",
  }));
  for (const bin of bins) {
    const tall = Math.max(1, (Math.log2(bin.count + 1) / most) * (base - top - 4));
    const cls = bin.exponent >= HALF.most ? "over" : bin.exponent < HALF.normal ? "under" : "bar";
    const wide = Math.max(0.8, x(bin.exponent + 1) - x(bin.exponent) - 1);
    picture.append(svg("rect", { x: x(bin.exponent), y: base - tall, width: wide, height: tall, class: cls }));
  }
  picture.append(line(left, base, width - right, base, "axis"));
  for (const e of [HALF.least, HALF.normal, HALF.most]) picture.append(line(x(e), top - 4, x(e), base + 4, "bound"));
  const room = (width - left - right) / (last - first);
  for (let e = Math.ceil(first / 8) * 8; e <= last; e += room > 9 ? 8 : 16) {
    picture.append(label(x(e), height - 6, "tick", `2${superscript(e)}`, "middle"));
  }
  picture.append(label((x(HALF.normal) + x(HALF.most)) / 2, top - 7, "tick", "half precision", "middle"));
  if (x(HALF.normal) - x(HALF.least) > 70) {
    picture.append(label((x(HALF.least) + x(HALF.normal)) / 2, top - 7, "tick", "fewer digits", "middle"));
  }
  return picture;
}

const superscript = (n) => String(n).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));

// All ops together, and those that are nearest to the bounds.
function rangesPlot(root, { ops }) {
  const having = ops.filter((op) => op.range);
  if (having.length === 0) return;
  root.hidden = false;
  const sums = new Map();
  for (const op of having) for (const b of op.range.bins) sums.set(b.exponent, (sums.get(b.exponent) ?? 0) + b.count);
  const bins = [...sums].sort((a, b) => a[0] - b[0]).map(([exponent, count]) => ({ exponent, count }));
  const greatest = (op) => Math.max(Math.abs(op.range.min ?? 0), Math.abs(op.range.max ?? 0));
  const over = having.filter((op) => greatest(op) >= 65520);
  const under = having.filter((op) => greatest(op) > 0 && greatest(op) < 2 ** HALF.normal);
  const infinite = having.filter((op) => op.range.nonFinite > 0);
  const holder = el("div", { class: "plot" });
  root.prepend(holder);
  const said = `${plural(over.length, "op")} with values beyond half precision, `
    + `${plural(under.length, "op")} whose values are all below its normal numbers`;
  drawn(holder, (width) => holder.replaceChildren(histogram(bins, width, 200, `Values of all ops by magnitude: ${said}`)));
  const links = (title, list, show) => list.length === 0 ? null : el("div", {},
    el("h3", {}, title),
    el("ul", { class: "links" }, ...list.slice(0, 8).map((op) => el("li", {},
      el("button", { type: "button", class: "op", onclick: () => select(op.index, true) }, op.name),
      " ", el("span", { class: "quiet" }, show(op))))));
  const byGreatest = [...having].sort((a, b) => greatest(b) - greatest(a)).filter((op) => greatest(op) >= 2048);
  const byLeast = [...having].filter((op) => op.range.least > 0).sort((a, b) => a.range.least - b.range.least)
    .filter((op) => op.range.least < 2 ** HALF.normal);
  root.append(el("div", { class: "nearest" },
    links(`Not finite: ${plural(infinite.length, "op")}`, infinite, (op) => `${plural(op.range.nonFinite, "element")}`),
    links(`Greatest values, of ${plural(over.length, "op")} beyond 65,504`, byGreatest, (op) => `to ${figure(greatest(op))}`),
    links("Least magnitudes, where half precision has fewer digits", byLeast, (op) => `from ${figure(op.range.least)}`)));
}

if (report) {
  if (byId("depth-plot")) depthPlot(byId("depth-plot"), report);
  if (byId("ranges-plot")) rangesPlot(byId("ranges-plot"), report);
}
