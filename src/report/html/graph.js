const LANES = 7;
const LANE = 12;

// Gives each op a lane, from its own row to the row of its last reader, as histories of revisions are drawn. Each row says which
// lanes pass, from which the op reads, and which begins. What has no room is not drawn.
function lanesOf(ops) {
  const until = ops.map((op) => Math.max(-1, ...op.readers));
  const live = new Array(LANES).fill(null);
  const laneOf = new Array(ops.length).fill(null);
  return ops.map((op) => {
    const passing = [];
    const from = [];
    const reads = new Set(op.reads);
    const ending = [];
    live.forEach((source, lane) => {
      if (source === null) return;
      if (reads.has(source)) from.push(lane);
      if (until[source] > op.index) passing.push(lane);
      else ending.push(lane);
    });
    for (const lane of ending) live[lane] = null;
    // What goes on along one line stays in its lane.
    const lane = ending.length > 0 && reads.size > 0 ? ending[0] : live.indexOf(null);
    if (lane >= 0) {
      laneOf[op.index] = lane;
      if (until[op.index] > op.index) live[lane] = op.index;
    }
    return { lane: lane < 0 ? LANES - 1 : lane, passing, from, begins: until[op.index] > op.index && lane >= 0 };
  });
}

// The picture of a row of `height` pixels.
function laneRow({ lane, passing, from, begins }, height, state) {
  const x = (i) => 8 + i * LANE;
  const middle = height / 2;
  const lines = passing.map((i) => `M${x(i)} 0V${height}`);
  for (const i of from) {
    lines.push(i === lane ? `M${x(i)} 0V${middle}` : `M${x(i)} 0C${x(i)} ${middle * 0.8} ${x(lane)} ${middle * 0.2} ${x(lane)} ${middle}`);
  }
  if (begins) lines.push(`M${x(lane)} ${middle}V${height}`);
  return svg("svg", { height, class: "lanes", "aria-hidden": "true" },
    svg("path", { d: lines.join("") }),
    svg("circle", { cx: x(lane), cy: middle, r: 4.5, class: "at", "data-state": state }));
}
