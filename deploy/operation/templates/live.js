"use strict";
// Asks for live.json four times a second and draws it; nothing here decides anything.
const PERIOD_MS = 250, PATIENCE_MS = 2000, CONFIRM_MS = 4000;
const PARTS = ["queue", "decode", "encode", "denoise", "send"];
const token = document.querySelector("meta[name=token]").content;
const at = id => document.getElementById(id);
const say = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
const number = value => value === 0 ? "0" : Math.abs(value) >= 100 ? value.toFixed(0)
  : Math.abs(value) >= 1 ? value.toFixed(2) : value.toPrecision(2);

function quantile(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
}

function draw(svg, shapes) {
  svg.setAttribute("viewBox", `0 0 ${svg.clientWidth} ${svg.clientHeight}`);
  svg.replaceChildren(...shapes.map(([name, attributes, text]) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    if (text !== undefined) shape.textContent = text;
    return shape;
  }));
}

const line = (points, attributes) =>
  ["polyline", { points: points.map(p => p.map(v => v.toFixed(1)).join(",")).join(" "), ...attributes }];

function drawTraces(state) {
  const box = at("actions");
  if (box.childElementCount !== state.actions.length) {
    box.replaceChildren(...state.actions.map(action => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      caption.textContent = action.label + (action.unit && action.unit !== "1" ? `, ${action.unit}` : "");
      figure.append(caption, document.createElementNS("http://www.w3.org/2000/svg", "svg"));
      return figure;
    }));
  }
  const traces = state.traces;
  if (!traces.length) return;
  const newest = traces[traces.length - 1];
  // Times relative to when the newest chunk's observation came: a silent robot's stay in view.
  const starts = traces.map(trace => newest.age_s - trace.age_s);
  const end = newest.actions.length * state.period_s, begin = Math.max(starts[0], -2 * end);
  [...box.querySelectorAll("svg")].forEach((svg, axis) => {
    const width = svg.clientWidth, height = svg.clientHeight;
    const values = traces.flatMap(trace => trace.actions.map(action => action[axis]));
    let low = Math.min(...values), high = Math.max(...values);
    if (high - low < 1e-9) { low -= 0.5; high += 0.5; }
    const x = t => (t - begin) / (end - begin) * width;
    const y = v => height - 16 - (v - low) / (high - low) * (height - 32);
    const shapes = traces.map((trace, i) => line(
      trace.actions.map((action, h) => [x(starts[i] + h * state.period_s), y(action[axis])])
        .filter(point => point[0] >= 0),
      { class: "trace", "stroke-opacity": i === traces.length - 1 ? 1 : 0.15 + 0.35 * i / traces.length }));
    const now = Math.min(newest.age_s, end);
    shapes.push(["line", { class: "now", x1: x(now), x2: x(now), y1: 0, y2: height - 14 }]);
    shapes.push(["text", { x: 0, y: 11 }, number(high)], ["text", { x: 0, y: height - 3 }, number(low)]);
    shapes.push(["text", { x: width, y: height - 3, "text-anchor": "end" }, `${number(end)} s`]);
    draw(svg, shapes);
  });
}

function drawLoops(chunks) {
  const svg = at("loops-plot"), width = svg.clientWidth, height = svg.clientHeight;
  const most = Math.max(1, ...chunks.map(chunk => chunk.loops));
  const x = i => 22 + i / Math.max(1, chunks.length) * (width - 26);
  const y = k => height - 18 - k / most * (height - 32);
  const shapes = [["line", { class: "axis", x1: 22, x2: width, y1: y(0), y2: y(0) }]];
  for (let k = 1; k <= most; k += Math.ceil(most / 5))
    shapes.push(["text", { x: 0, y: y(k) + 4 }, String(k)], ["line", { class: "axis", x1: 22, x2: width, y1: y(k), y2: y(k) }]);
  shapes.push(line(chunks.flatMap((chunk, i) => [[x(i), y(chunk.loops)], [x(i + 1), y(chunk.loops)]]), { class: "steps" }));
  chunks.forEach((chunk, i) => {
    if (chunk.late) shapes.push(["circle", { class: "late", cx: x(i + 0.5), cy: y(chunk.loops), r: 4 }]);
  });
  shapes.push(["text", { x: width, y: height - 3, "text-anchor": "end" }, `last ${chunks.length}`]);
  draw(svg, shapes);
}

function drawTimes(totals) {
  const svg = at("times-plot"), width = svg.clientWidth, height = svg.clientHeight;
  const bounds = [];
  for (let power = -2; power < 5; power++) for (const step of [1, 2, 5]) bounds.push(step * 10 ** power);
  const first = Math.max(0, bounds.findIndex(bound => bound >= totals[0]) - 1);
  const last = bounds.findIndex(bound => bound >= totals[totals.length - 1]);
  const used = bounds.slice(first, (last < 0 ? bounds.length : last) + 1);
  const counts = used.map((bound, i) =>
    totals.filter(ms => ms <= bound && (i === 0 || ms > used[i - 1])).length);
  const most = Math.max(...counts), wide = width / used.length;
  const shapes = [];
  counts.forEach((count, i) => {
    const tall = count / most * (height - 36);
    shapes.push(["rect", { class: "bar", x: i * wide + 2, width: Math.max(1, wide - 4), y: height - 18 - tall, height: tall }]);
    if (count) shapes.push(["text", { x: (i + 0.5) * wide, y: height - 22 - tall, "text-anchor": "middle" }, String(count)]);
    shapes.push(["text", { x: (i + 1) * wide - 2, y: height - 3, "text-anchor": "end" }, `≤${used[i] >= 1 ? used[i] : Number(used[i].toPrecision(1))}`]);
  });
  draw(svg, shapes);
}

function drawParts(chunks) {
  const svg = at("parts-plot"), width = svg.clientWidth, height = svg.clientHeight;
  const medians = PARTS.map((_, part) =>
    quantile(chunks.map(chunk => chunk.us[part] / 1e3).sort((a, b) => a - b), 0.5));
  const most = Math.max(1e-9, ...medians), row = height / PARTS.length;
  draw(svg, PARTS.flatMap((part, i) => {
    const middle = (i + 0.5) * row, wide = medians[i] / most * (width - 120);
    return [["text", { x: 0, y: middle + 4 }, part],
      ["rect", { class: "bar", x: 60, width: Math.max(1, wide), y: middle - row / 4, height: row / 2 }],
      ["text", { x: 66 + wide, y: middle + 4 }, number(medians[i])]];
  }));
}

let frames = -1;
function showCameras(state) {
  const box = at("cameras");
  if (!state.frames || state.frames === frames) return;
  frames = state.frames;
  if (box.childElementCount !== state.cameras.length) {
    box.replaceChildren(...state.cameras.map(name => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      caption.textContent = name;
      const image = document.createElement("img");
      image.alt = `What the camera ${name} sees`;
      figure.append(caption, image);
      return figure;
    }));
  }
  box.querySelectorAll("img").forEach((image, i) => {
    image.src = `camera/${encodeURIComponent(state.cameras[i])}?n=${frames}`;
  });
}

function tiles(rows) {
  const box = at("tiles");
  if (box.childElementCount !== rows.length) {
    box.replaceChildren(...rows.map(() => {
      const tile = document.createElement("div");
      tile.className = "tile";
      tile.append(document.createElement("b"), document.createElement("span"));
      return tile;
    }));
  }
  rows.forEach(([label, value], i) => {
    const [shown, said] = box.children[i].children;
    shown.textContent = value === null || value === undefined ? "–" : String(value);
    said.textContent = label;
  });
}

const listed = counts => Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(", ");

function showControl(control, state) {
  const acted = listed(control.acted);
  tiles([["actions a second", number(control.rate_hz)],
    ["ms late, p99", number(control.late_us.p99 / 1e3)],
    ["periods missed", control.missed], ["loops K, last chunk", control.loops],
    ["ms for a chunk, p50", number(control.chunk_us.p50 / 1e3)],
    ["chunks", control.chunks]]);
  say("errors", acted ? `Safety acted: ${acted}` : "Safety has not acted.");
  say("shown", "What was sent to the robot in the last seconds.");
  say("followed", state.silent_s === null || state.silent_s > 2 ? "Nothing is sent." : "The server owns the loop.");
}

function showReplies(state) {
  const server = state.server ?? {}, chunks = state.chunks;
  const totals = chunks.map(c => c.us.reduce((a, b) => a + b, 0) / 1e3).sort((a, b) => a - b);
  const of = share => totals.length ? number(quantile(totals, share)) : null;
  tiles([["loops K, last chunk", chunks.length ? chunks[chunks.length - 1].loops : null],
    ["ms in the server, p50", of(0.5)], ["ms in the server, p99", of(0.99)],
    ["deadline misses", state.deadline_misses], ["chunks", server.answered],
    ["refused", server.refused], ["sessions", server.sessions], ["waiting", server.queued]]);
  const errors = listed(state.errors), kept = state.recorded;
  say("errors", errors ? `Refused: ${errors}` : "");
  say("recorded", kept ? `${kept.going_on ? "Recording" : "Recording has stopped, see the log"}: `
    + `${kept.steps} steps in ${kept.episodes} episodes written, ${kept.dropped} steps dropped` : "");
  if (!chunks.length) return;
  say("followed", state.silent_s === null ? `Session ${state.session} has ended.`
    : state.silent_s > 2 ? `Session ${state.session}, no chunk for ${Math.round(state.silent_s)} s.`
    : `Session ${state.session}`);
  drawLoops(chunks);
  drawTimes(totals);
  drawParts(chunks);
}

function show(state) {
  const server = state.server, stop = state.stop, stopped = stop.pressed || stop.reason;
  say("state", !server ? "Not ready: the policy warms up, or the server has stopped."
    : stopped ? `STOPPED: ${stop.reason}` : server.busy_us > 0 ? "Ready, computing" : "Ready");
  at("state").className = !server || stopped ? "bad" : "good";
  at("stop").hidden = stop.pressed;
  at("release").hidden = !stop.pressed;
  if (server) say("model", `policy ${server.model_id}, up ${Math.round(server.uptime_us / 1e6)} s`);
  at("seen").hidden = !state.cameras.length;
  at("made").hidden = !state.chunks.length;
  showCameras(state);
  if (state.control) showControl(state.control, state);
  else showReplies(state);
  drawTraces(state);
}

function lost(text) {
  say("state", text);
  at("state").className = "bad";
  document.querySelector("main").classList.add("stale");
}

async function poll() {
  try {
    const answer = await fetch("live.json", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    document.querySelector("main").classList.remove("stale");
  } catch {
    lost("No answer: what is below is old. A stop from here may not arrive.");
  }
  setTimeout(poll, document.hidden ? 4 * PERIOD_MS : PERIOD_MS);
}

async function order(pressed) {
  try {
    const answer = await fetch("stop", {
      method: "POST", signal: AbortSignal.timeout(PATIENCE_MS),
      headers: { "Content-Type": "application/json", "X-Loopdit-Token": token },
      body: JSON.stringify({ pressed }),
    });
    // The token is the server's, and new with each start of it.
    if (answer.status === 403) { location.reload(); return; }
    if (!answer.ok) throw new Error(answer.status);
  } catch {
    lost("The order did not arrive. Use the robot's own stop.");
  }
}

at("stop").addEventListener("click", () => order(true));
let asked = 0;
at("release").addEventListener("click", () => {
  const button = at("release");
  if (Date.now() - asked < CONFIRM_MS) {
    asked = 0;
    button.textContent = "Release the stop";
    order(false);
    return;
  }
  asked = Date.now();
  button.textContent = "Sure? Press again to release";
  setTimeout(() => { button.textContent = "Release the stop"; }, CONFIRM_MS);
});
poll();
