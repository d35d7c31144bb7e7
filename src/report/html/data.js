// The states of an op: a mark, what it means, and how bad it is.
const STATES = {
  culprit: { mark: "✕", about: "off by more than its type explains" },
  inherits: { mark: "↓", about: "off by what it reads" },
  explained: { mark: "≈", about: "off by what its type explains" },
  exact: { mark: "=", about: "equal" },
  "not compared": { mark: "·", about: "not compared with the source" },
};
const UNKNOWN = { mark: "·", about: "" };

// What half precision holds: normal numbers from 2^-14, any from 2^-24, to below 2^16.
const HALF = { least: -24, normal: -14, most: 16 };

// A name of a module, of the places of an op: not a node, and no line of code.
const pathOf = (places) => [...places].reverse().find((p) => !/:\d+$/.test(p) && !/\s/.test(p)) ?? "";

function decodeRange(row) {
  if (!row) return null;
  const [first, codes, min, max, least, zeros, nonFinite] = row;
  const bins = [...codes].map((c, i) => {
    const code = c.charCodeAt(0) - 33;
    return { exponent: first + i, count: code === 0 ? 0 : 2 ** ((code - 1) / 3) };
  });
  return { bins: bins.filter((b) => b.count > 0), min, max, least, zeros, nonFinite };
}

// The ops of the page as objects, in program order; null where there are none.
function decode() {
  const element = byId("data");
  const data = element && JSON.parse(element.textContent);
  if (!data?.ops) return null;
  const s = (i) => data.strings[i] ?? "";
  const ops = data.ops.map((row, index) => {
    const [name, kind, fn, type, depth, state, snr, own, explained, maxAbs, paired, macs, reads, places, range] = row;
    const place = places.map(s);
    return {
      index, original: data.kept ? data.kept[index] : index, name: s(name) || "op", kind: s(kind), fn: s(fn), type: s(type), depth: depth ?? index, state: s(state),
      snr, own, explained, maxAbs, paired: s(paired), macs, reads, readers: [], place, path: pathOf(place),
      range: decodeRange(range), culprit: null, weights: [],
    };
  });
  for (const op of ops) for (const read of new Set(op.reads)) ops[read].readers.push(op.index);
  for (const [op, why, own, explained, repaired, note] of data.culprits) {
    ops[op].culprit = { why: s(why), own, explained, repaired, note: s(note) };
  }
  for (const [op, name, type, scheme, bits, size, source, snr] of data.weights) {
    ops[op].weights.push({ name: s(name), type: s(type), scheme: s(scheme), bits, size, source, snr });
  }
  return { ops, total: data.total, tolerance: data.tolerance };
}

const report = decode();
// Called with an op whenever another one is selected.
const onSelect = [];
let select = () => {};
