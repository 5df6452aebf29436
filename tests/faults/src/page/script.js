"use strict";
// The data of one run is in the element `data`; page.rs says what its fields are. Times are microseconds.
const D = JSON.parse(document.getElementById("data").textContent);
const el = id => document.getElementById(id);
const node = (tag, value = "", cls = "") => { const e = document.createElement(tag); e.textContent = value; if (cls) e.className = cls; return e };
const row = (table, cells, cls = "") => { const r = document.createElement("tr"); if (cls) r.className = cls; r.append(...cells.map(c => c instanceof Node ? c : node("td", c))); table.append(r); return r };
const number = n => Number(n).toLocaleString("en-US").replaceAll(",", " ");
const seconds = us => (us / 1e6).toFixed(3) + " s";
const duration = us => us < 1000 ? us.toFixed(0) + " µs" : us < 1e6 ? (us / 1000).toFixed(us < 10_000 ? 2 : 1) + " ms" : (us / 1e6).toFixed(2) + " s";
const names = members => members.map(m => "m" + (m + 1)).join(" ");

// Light or dark, as the system has it until somebody chooses.
const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto", css;
function colours() {
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  const style = getComputedStyle(document.documentElement), cache = new Map();
  css = name => { if (!cache.has(name)) cache.set(name, style.getPropertyValue("--" + name).trim()); return cache.get(name) };
  el("theme").textContent = "theme: " + theme;
}
el("theme").onclick = () => { theme = { auto: "light", light: "dark", dark: "auto" }[theme]; colours(); legend(); draw() };
dark.addEventListener("change", () => { colours(); legend(); draw() });

// Above the timeline.
el("product").textContent = D.product; el("title").textContent = D.title; el("summary").textContent = D.summary; el("level").textContent = D.level;
const violated = D.verdicts.filter(v => v.state === "violated");
el("verdict").append(violated.length ? node("span", `Violated: ${violated.map(v => v.checker).join(", ")}`, "violated")
  : D.invalid ? node("span", `Not a valid run: ${D.invalid}`, "undecided") : node("span", "No violation", "passed"));
for (const [name, value, rest] of D.tiles) { const d = node("div"), dd = node("dd", value); if (rest) dd.append(" ", node("small", rest)); d.append(node("dt", name), dd); el("tiles").append(d) }
for (const v of violated) {
  const box = node("article", "", "violation"); box.append(node("h3", `${v.checker} is violated`));
  const [sentence, ...rest] = v.sentence.split("\n"); box.append(node("p", sentence, "sentence"), node("p", `What must hold: ${v.meaning}.`, "soft"));
  if (v.model.length) { const dl = node("dl", "", "model"); for (const [k, x] of v.model) dl.append(node("dt", k), node("dd", x)); box.append(dl) }
  if (v.history.length) { const t = node("table"); t.append(node("caption", v.history_of)); for (const [here, cells] of v.history) row(t, cells, here ? "here" : ""); const w = node("div", "", "wide"); w.append(t); box.append(w) }
  if (v.at !== null) { const b = node("button", "show it in the timeline"); b.type = "button"; b.onclick = () => jump(v); box.append(b) }
  if (rest.length) { const d = node("details", "", "soft"); d.append(node("summary", "what else was said"), node("pre", rest.join("\n"))); box.append(d) }
  el("violations").append(box);
}
row(el("verdicts"), [node("th", "checker"), node("th", "verdict"), node("th", "looked at", "number"), node("th", "what must hold")]);
for (const v of D.verdicts) row(el("verdicts"), [node("td", v.checker, "name"), node("td", v.state === "idle" ? "nothing to check" : v.state, "state " + v.state),
  node("td", v.checked ? `${number(v.checked)} ${v.unit}` : "", "number"), v.meaning]);
row(el("faults"), ["", "from", "for", "kind", "target", "members", "effect", "evidence"].map((h, i) => node("th", h, i === 1 || i === 2 || i === 6 ? "number" : "")));
for (const f of D.faults) {
  const b = node("button", "show"); b.type = "button"; b.ariaLabel = `show ${f.kind} at ${seconds(f.from)}`;
  b.onclick = () => { const w = Math.max(1e6, f.to - f.from) * .4; view(f.from - w, f.to + w); el("timeline-heading").scrollIntoView() };
  const way = node("td"); way.append(b);
  row(el("faults"), [way, node("td", seconds(f.from), "number"), node("td", duration(f.to - f.from), "number"), node("td", f.kind, "name"), f.target, node("td", names(f.members), "still"),
    node("td", f.effect ? number(f.effect) : "none", f.effect ? "number" : "number none"), f.evidence]);
}
for (const [k, v] of Object.entries(D.figures)) if (v === null || typeof v !== "object") row(el("figures"), [k.replaceAll("_", " "), node("td", typeof v === "number" ? number(v) : v ?? "-", typeof v === "number" ? "number" : "")]);
el("repeat").append("Again: ", node("code", D.repeat), "; judged again without repeating it: ", node("code", D.again));

// Lanes. Each bar lane has its bars by time; `reach` is the latest end of all before, so that a search finds the first that is visible.
const STYLES = D.styles.map(s => s[0]), BAD = STYLES.indexOf("bad"), UNKNOWN = STYLES.indexOf("unknown"), REFUSED = STYLES.indexOf("refused");
const lanes = [], AXIS = 22, STRIP = 40; let height = 0;
const add = (lane, h, gap = 3) => { lanes.push({ ...lane, y: height, h }); height += h + gap };
const heading = text => { height += 7; lanes.push({ kind: "heading", name: text, y: height, h: 15 }); height += 17 };
const bars = list => { let reach = 0; list.reach = Float64Array.from(list.to, t => reach = Math.max(reach, t)); return list };
heading("faults");
const ends = [];
for (const f of D.faults) { let l = ends.findIndex(end => end <= f.from); if (l < 0) l = ends.push(0) - 1; ends[l] = f.to; f.level = l }
const chips = ends.map((_, l) => D.faults.filter(f => f.level === l));
chips.forEach(list => add({ kind: "faults", name: "", list }, 17));
if (D.samples.length) {
  heading("members");
  const EVERY = 600_000, segments = Array.from({ length: D.members }, () => []), leads = [];
  for (const [at, member, answered, leader, term, revision, memory, files] of D.samples) {
    const list = segments[member], last = list.at(-1), state = answered ? (leader ? 2 : 1) : 0;
    if (last) last.to = Math.min(at, last.seen + EVERY);
    if (last && last.state === state && last.term === term && at - last.seen < EVERY) Object.assign(last, { to: at, seen: at, revision, memory, files });
    else list.push({ from: at, to: at + 250_000, seen: at, state, term, member, revision, memory, files });
  }
  for (const s of segments.flat()) if (s.state === 2) leads.push(s);
  leads.sort((a, b) => a.from - b.from);
  add({ kind: "leader", name: "leader", list: leads }, 17);
  segments.forEach((list, m) => add({ kind: "member", name: "m" + (m + 1), list }, 11));
}
const measured = [];
let group = null;
for (const lane of D.lanes) {
  if (lane.group !== group) { heading(group = lane.group) }
  const rows = lane.rows || 1;
  lane.number = lanes.length; bars(lane); lane.kind = "bars"; lane.hits = null;
  add(lane, rows === 1 ? 13 : rows * 6 + 2);
  D.lanes[D.lanes.indexOf(lane)] = lanes.at(-1);
  if (lane.measured) for (let i = 0; i < lane.from.length; i++) measured.push([lane.to[i], lane.to[i] - lane.from[i], lane.style[i]]);
}
measured.sort((a, b) => a[0] - b[0]);
heading(D.measured); add({ kind: "latency", name: "" }, 120, 8); add({ kind: "rate", name: "" }, 64, 8);
const slowest = Math.max(10_000, ...(() => { let m = 0; for (const x of measured) m = Math.max(m, x[1]); return [m] })());
const barLanes = lanes.filter(l => l.kind === "bars");

const END = D.end, head = el("head"), body = el("body");
let from = 0, to = END, width = 0, LEFT = 96, pinned = null, pointer = null, chosen = -1, dirty = false;
const px = t => LEFT + (t - from) / (to - from) * (width - LEFT), time = x => from + (x - LEFT) / (width - LEFT) * (to - from);
function view(a, b) {
  const SPAN_MIN = 400, span = Math.min(END, Math.max(SPAN_MIN, b - a)), middle = (a + b) / 2;
  from = Math.max(0, Math.min(END - span, middle - span / 2)); to = from + span; draw();
}
function draw() { if (dirty) return; dirty = true; requestAnimationFrame(() => { dirty = false; paint() }) }
function prepare(canvas, h) {
  const scale = devicePixelRatio || 1, g = canvas.getContext("2d");
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(h * scale)) { canvas.style.height = h + "px"; canvas.width = Math.round(width * scale); canvas.height = Math.round(h * scale) }
  g.setTransform(scale, 0, 0, scale, 0, 0); g.clearRect(0, 0, width, h); g.font = `12px ${getComputedStyle(document.body).fontFamily}`; g.textBaseline = "middle"; return g;
}
const firstOf = (list, t) => { let a = 0, b = list.length; while (a < b) { const m = a + b >> 1; if (list[m] < t) a = m + 1; else b = m } return a };
function steps(span, room) { const raw = span / room; const unit = 10 ** Math.floor(Math.log10(raw)); return unit * [1, 2, 5, 10].find(k => unit * k >= raw) }
function hatch(g, colour) {
  const c = document.createElement("canvas"); c.width = c.height = 6; const h = c.getContext("2d");
  h.fillStyle = colour; h.globalAlpha = .35; h.fillRect(0, 0, 6, 6); h.globalAlpha = 1; h.strokeStyle = colour; h.lineWidth = 1.6;
  h.beginPath(); for (const o of [-6, 0, 6]) { h.moveTo(o, 6); h.lineTo(o + 6, 0) } h.stroke(); return g.createPattern(c, "repeat");
}
const termColour = term => `hsl(${(term * 67 + 190) % 360} ${css("term-s")} ${css("term-l")})`;
function clipped(g, text, x, y, room) {
  if (g.measureText(text).width <= room) return g.fillText(text, x, y);
  let t = text; while (t.length > 2 && g.measureText(t + "…").width > room) t = t.slice(0, -1); if (t.length > 2) g.fillText(t.trimEnd() + "…", x, y);
}

// Percentiles and rates of what returned in each step of the visible time.
let stats = null;
function statistics() {
  const step = Math.max(20_000, steps(to - from, Math.max(30, (width - LEFT) / 7))), key = `${from} ${to} ${step}`;
  if (stats && stats.key === key) return stats;
  const list = []; let i = 0, a = 0, b = measured.length; const begin = Math.floor(from / step) * step;
  while (a < b) { const m = a + b >> 1; if (measured[m][0] < begin) a = m + 1; else b = m } i = a;
  for (let t = begin; t < to; t += step) {
    const took = []; let refused = 0, unknown = 0;
    for (; i < measured.length && measured[i][0] < t + step; i++) { const [, d, s] = measured[i]; if (s === UNKNOWN) unknown++; else if (s === REFUSED) refused++; else took.push(d) }
    took.sort((x, y) => x - y); const p = q => took.length ? took[Math.min(took.length - 1, Math.floor(q * took.length))] : null;
    list.push({ t, answered: took.length, refused, unknown, p50: p(.5), p95: p(.95), p99: p(.99), max: p(1) });
  }
  return stats = { key, step, list };
}
const overview = (() => { const N = 400, parts = [0, 1, 2].map(() => new Float64Array(N));
  for (const [t, , s] of measured) parts[s === UNKNOWN ? 2 : s === REFUSED ? 1 : 0][Math.min(N - 1, Math.floor(t / END * N))]++;
  return { N, parts, most: parts[0].reduce((most, n, b) => Math.max(most, n + parts[1][b] + parts[2][b]), 1) } })();
// When at least one fault was active, without overlaps.
const disturbed = []; for (const f of D.faults) { const last = disturbed.at(-1); if (last && f.from <= last.to) last.to = Math.max(last.to, f.to); else disturbed.push({ from: f.from, to: f.to }) }

function paint() {
  width = el("chart").clientWidth; LEFT = width < 640 ? 96 : 132;
  paintHead(); const g = prepare(body, height + 4);
  const patterns = new Map(); const fill = s => { const name = STYLES[s]; if (name === "unknown") { if (!patterns.has(s)) patterns.set(s, hatch(g, css("s-unknown"))); return patterns.get(s) } return css("s-" + name) };
  g.save(); g.beginPath(); g.rect(LEFT, 0, width - LEFT, height + 4); g.clip();
  g.fillStyle = css("band"); for (const f of disturbed) if (f.to >= from && f.from <= to) g.fillRect(px(f.from), 0, Math.max(1, px(f.to) - px(f.from)), height);
  const step = steps(to - from, (width - LEFT) / 110); g.fillStyle = css("line");
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) g.fillRect(Math.round(px(t)), 0, 1, height + 4);
  for (const lane of lanes) ({ faults: paintFaults, leader: paintLeader, member: paintMember, bars: paintBars, latency: paintLatency, rate: paintRate }[lane.kind] || (() => {}))(g, lane, fill);
  if (pointer) { g.fillStyle = css("soft"); g.globalAlpha = .5; g.fillRect(Math.round(px(pointer.t)), 0, 1, height + 4); g.globalAlpha = 1 }
  g.restore();
  for (const lane of lanes) {
    if (lane.kind === "heading") { g.fillStyle = css("soft"); g.font = g.font.replace(/^.*?px/, "600 12px"); g.fillText(lane.name, 8, lane.y + 8); g.font = g.font.replace(/^.*?px/, "12px"); continue }
    g.fillStyle = chosen >= 0 && lanes[chosen] === lane ? css("accent") : css("ink"); if (lane.name) clipped(g, lane.name, 14, lane.y + Math.min(lane.h, 17) / 2 + .5, LEFT - 18);
  }
}
function paintHead() {
  const g = prepare(head, STRIP + AXIS), all = width - LEFT, X = t => LEFT + t / END * all;
  g.fillStyle = css("band"); for (const f of disturbed) g.fillRect(X(f.from), 0, Math.max(1, X(f.to) - X(f.from)), STRIP);
  const { N, parts, most } = overview, tall = STRIP - 8;
  for (let b = 0; b < N; b++) { let y = STRIP; parts.forEach((n, p) => { const h = n[b] / most * tall; g.fillStyle = css(["s-read", "s-refused", "s-unknown"][p]); g.fillRect(LEFT + b / N * all, y - h, all / N + .4, h); y -= h }) }
  for (const v of violated) if (v.at !== null) { g.fillStyle = css("s-bad"); g.fillRect(X(v.at) - 1, 0, 2, STRIP) }
  g.fillStyle = css("paper"); g.globalAlpha = .62; g.fillRect(LEFT, 0, X(from) - LEFT, STRIP); g.fillRect(X(to), 0, width - X(to), STRIP); g.globalAlpha = 1;
  g.strokeStyle = css("accent"); g.lineWidth = 1.5; g.strokeRect(X(from) + .75, .75, Math.max(2, X(to) - X(from) - 1.5), STRIP - 1.5);
  g.fillStyle = css("soft"); g.fillText("run", 8, STRIP / 2);
  const step = steps(to - from, all / 110), digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step / 1e6) + 1e-9)));
  g.fillText("time", 8, STRIP + AXIS / 2);
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) { const label = (t / 1e6).toFixed(digits) + " s", x = Math.round(px(t)); g.fillStyle = css("line"); g.fillRect(x, STRIP, 1, AXIS); g.fillStyle = css("soft"); if (x + 4 + g.measureText(label).width < width) g.fillText(label, x + 4, STRIP + AXIS / 2) }
  g.fillStyle = css("line"); g.fillRect(0, STRIP + AXIS - 1, width, 1);
}
function paintFaults(g, lane) {
  for (const f of lane.list) { if (f.to < from || f.from > to) continue;
    const x = px(f.from), w = Math.max(2, px(f.to) - x - 1);
    if (f.effect) { g.fillStyle = css("fault-fill"); g.fillRect(x, lane.y, w, lane.h); g.fillStyle = css("fault"); g.fillRect(x, lane.y, 2, lane.h) }
    else { g.strokeStyle = css("fault-fill"); g.lineWidth = 1; g.setLineDash([3, 3]); g.strokeRect(x + .5, lane.y + .5, w - 1, lane.h - 1); g.setLineDash([]) }
    g.fillStyle = css("fault-text"); const left = Math.max(LEFT, x); clipped(g, `${f.kind} ${names(f.members)}`, left + 5, lane.y + 9, x + w - left - 6) }
}
function paintLeader(g, lane) {
  for (const s of lane.list) { if (s.to < from || s.from > to) continue; const x = px(s.from), w = Math.max(1.5, px(s.to) - x);
    g.fillStyle = termColour(s.term); g.fillRect(x, lane.y, w, lane.h); g.fillStyle = css("term-text"); const left = Math.max(LEFT, x); clipped(g, `m${s.member + 1} term ${s.term}`, left + 4, lane.y + 9, x + w - left - 5) }
}
function paintMember(g, lane) { for (const s of lane.list) { if (!s.state || s.to < from || s.from > to) continue; g.fillStyle = s.state === 2 ? termColour(s.term) : css("alive"); g.fillRect(px(s.from), lane.y, Math.max(1, px(s.to) - px(s.from)), lane.h) } }
function paintBars(g, lane, fill) {
  const rows = lane.rows || 1, h = rows === 1 ? lane.h : 5, late = []; let last = -1, lastStyle = -1;
  g.fillStyle = css("shade"); g.fillRect(LEFT, lane.y, width - LEFT, lane.h);
  const one = (i, x, w) => { const y = lane.y + (rows === 1 ? 0 : 1 + 6 * lane.row[i]); g.globalAlpha = lane.hits && !lane.hits[i] ? .14 : 1; g.fillStyle = fill(lane.style[i]); g.fillRect(x, y, w, h); g.globalAlpha = 1; return y };
  for (let i = firstOf(lane.reach, from); i < lane.from.length && lane.from[i] <= to; i++) {
    const x = px(lane.from[i]), end = px(lane.to[i]), s = lane.style[i];
    if (s === BAD || s === UNKNOWN || s === REFUSED || lane.hits && lane.hits[i]) { late.push(i); continue }
    if (rows === 1 && s === lastStyle && end <= last) continue; // nothing of it would be seen
    const w = Math.max(1, end - x - (end - x > 4 ? .6 : 0)); one(i, x, w); last = x + w; lastStyle = s;
  }
  for (const i of late) { const x = px(lane.from[i]), w = Math.max(lane.style[i] === BAD ? 4 : 1.5, px(lane.to[i]) - x), y = one(i, x, w);
    if (lane.style[i] === BAD) { g.strokeStyle = css("ink"); g.lineWidth = 1; g.strokeRect(x - 1, y - 1, w + 2, h + 2) } }
  if (pinned && pinned.lane === lane) { const i = pinned.i, y = lane.y + (rows === 1 ? 0 : 1 + 6 * lane.row[i]); g.strokeStyle = css("ink"); g.lineWidth = 1.5; g.strokeRect(px(lane.from[i]) - 1.5, y - 1.5, Math.max(2, px(lane.to[i]) - px(lane.from[i])) + 3, h + 3) }
}
function paintLatency(g, lane) {
  const { step, list } = statistics(), low = 500, Y = v => lane.y + lane.h - Math.log(Math.max(v, low) / low) / Math.log(slowest / low) * lane.h;
  for (let v = 1000; v <= slowest; v *= 10) { g.fillStyle = css("line"); g.fillRect(LEFT, Math.round(Y(v)), width - LEFT, 1) }
  g.restore(); g.save(); g.fillStyle = css("soft"); for (let v = 1000; v <= slowest; v *= 10) g.fillText(v < 1e6 ? v / 1000 + " ms" : v / 1e6 + " s", 14, Y(v)); g.beginPath(); g.rect(LEFT, 0, width - LEFT, height + 4); g.clip();
  const mid = b => px(b.t + step / 2); g.fillStyle = css("max"); for (const b of list) if (b.max !== null) g.fillRect(mid(b) - 1.5, Y(b.max) - 1.5, 3, 3);
  for (const [name, colour] of [["p99", "p99"], ["p50", "p50"]]) { g.strokeStyle = css(colour); g.lineWidth = 1.6; g.beginPath(); let on = false; for (const b of list) { if (b[name] === null) { on = false; continue } const x = mid(b), y = Y(b[name]); on ? g.lineTo(x, y) : g.moveTo(x, y); if (!on) { g.lineTo(x + .1, y) } on = true } g.stroke() }
}
function paintRate(g, lane) {
  const { step, list } = statistics(), per = n => n * 1e6 / step, most = Math.max(1, ...list.map(b => per(b.answered + b.refused + b.unknown)));
  for (const b of list) { let y = lane.y + lane.h; const x = px(b.t), w = Math.max(1, px(b.t + step) - x - .7);
    for (const [n, colour] of [[b.answered, "s-read"], [b.refused, "s-refused"], [b.unknown, "s-unknown"]]) { const h = per(n) / most * lane.h; g.fillStyle = css(colour); g.fillRect(x, y - h, w, h); y -= h } }
  g.restore(); g.save(); g.fillStyle = css("soft"); g.fillText(`${number(Math.round(most))}/s`, 14, lane.y + 7); g.fillText("0", 14, lane.y + lane.h - 6); g.beginPath(); g.rect(LEFT, 0, width - LEFT, height + 4); g.clip();
}

// What is under a point, or beside it.
function hit(x, y) {
  const lane = lanes.find(l => y >= l.y - 1 && y <= l.y + l.h + 1); if (!lane || x < LEFT) return null; const t = time(x), slack = (to - from) / (width - LEFT) * 4;
  const inside = list => list.findLast(s => t >= s.from - slack && t <= s.to + slack);
  if (lane.kind === "faults") { const f = inside(lane.list); return f && { lane, text: `${f.kind} ${f.target}, ${names(f.members)}\n${seconds(f.from)} to ${seconds(f.to)} (${duration(f.to - f.from)})\n${f.effect ? f.evidence : "no effect: " + f.evidence}` } }
  if (lane.kind === "leader" || lane.kind === "member") { const s = inside(lane.list); return s && { lane, text: s.state ? `m${s.member + 1} ${s.state === 2 ? "leads" : "follows"} in term ${s.term}\n${seconds(s.from)} to ${seconds(s.to)}; at its end revision ${number(s.revision)}, ${Math.round(s.memory / 1024)} MiB, ${s.files} open files` : `m${s.member + 1} does not answer\n${seconds(s.from)} to ${seconds(s.to)}` } }
  if (lane.kind === "latency" || lane.kind === "rate") { const { step, list } = statistics(), b = list.find(b => t >= b.t && t < b.t + step); if (!b) return null; const d = v => v === null ? "-" : duration(v);
    return { lane, text: `${seconds(b.t)} and the ${duration(step)} after it\n${number(b.answered)} answered, ${b.refused} refused, ${b.unknown} unknown\nmedian ${d(b.p50)}, 95 % ${d(b.p95)}, 99 % ${d(b.p99)}, slowest ${d(b.max)}` } }
  if (lane.kind !== "bars") return null;
  let best = -1, near = Infinity; const line = (lane.rows || 1) > 1 ? Math.floor((y - lane.y - 1) / 6) : null;
  for (let i = firstOf(lane.reach, t - slack); i < lane.from.length && lane.from[i] <= t + slack; i++) {
    if (lane.to[i] < t - slack || line !== null && lane.row[i] !== line) continue;
    const away = t < lane.from[i] ? lane.from[i] - t : t > lane.to[i] ? t - lane.to[i] : 0, rank = away - (lane.style[i] === BAD ? 1e9 : lane.style[i] === UNKNOWN ? slack : 0);
    if (rank <= near) { near = rank; best = i }
  }
  return best < 0 ? null : { lane, i: best, text: say(lane, best) };
}
const say = (lane, i) => `${lane.name}: ${lane.text[i]}\n${seconds(lane.from[i])} to ${seconds(lane.to[i])} (${duration(lane.to[i] - lane.from[i])})${lane.style[i] === UNKNOWN ? "\nthe client was not told; it may have happened or not" : ""}`;
function pin(what) {
  pinned = what && what.i !== undefined ? what : null; const d = el("detail"); d.replaceChildren();
  if (what) { const [first, ...rest] = what.text.split("\n"); d.append(node("b", first), "\n" + rest.join("\n")); if (what.i !== undefined) chosen = lanes.indexOf(what.lane) } else d.append(node("span", "Point at something, or click it to keep it here.", "soft"));
  draw();
}
function show(lane, i) { const w = Math.max(60_000, (lane.to[i] - lane.from[i]) * 3); if (lane.to[i] - lane.from[i] > (to - from) * .8 || lane.from[i] < from || lane.to[i] > to) view(lane.from[i] - w, lane.to[i] + w); pin({ lane, i, text: say(lane, i) }) }
function jump(v) {
  view(v.at - 150_000, (v.until ?? v.at) + 150_000); el("timeline-heading").scrollIntoView();
  const lane = v.lane === null ? null : D.lanes[v.lane]; if (lane) { const i = lane.from.findIndex((f, i) => f === v.at && lane.style[i] === BAD); if (i >= 0) pin({ lane, i, text: say(lane, i) }) }
  body.focus({ preventScroll: true });
}

// Mouse, touch and keys.
const zoom = (k, t = (from + to) / 2) => view(t - (t - from) * k, t + (to - t) * k);
let held = null; const down = new Map();
body.addEventListener("wheel", e => {
  if (e.ctrlKey || e.metaKey || e.altKey) { e.preventDefault(); zoom(Math.exp(Math.max(-80, Math.min(80, e.deltaY)) * .006), time(e.offsetX)) }
  else if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) { e.preventDefault(); const d = (e.shiftKey && !e.deltaX ? e.deltaY : e.deltaX) / (width - LEFT) * (to - from); view(from + d, to + d) } }, { passive: false });
body.addEventListener("pointerdown", e => { if (e.button) return; down.set(e.pointerId, e.offsetX); if (down.size === 1) held = { x: e.offsetX, from, to, moved: false }; else held = { pinch: Math.abs([...down.values()][0] - [...down.values()][1]), from, to, t: time(([...down.values()][0] + [...down.values()][1]) / 2), moved: true }; body.setPointerCapture(e.pointerId) });
body.addEventListener("pointermove", e => {
  if (down.has(e.pointerId)) down.set(e.pointerId, e.offsetX);
  if (held && held.pinch && down.size > 1) { const [a, b] = [...down.values()], k = held.pinch / Math.max(8, Math.abs(a - b)); view(held.t - (held.t - held.from) * k, held.t + (held.to - held.t) * k); return }
  if (held && down.size) { const d = (held.x - e.offsetX) / (width - LEFT) * (held.to - held.from); if (Math.abs(held.x - e.offsetX) > 3) { held.moved = true; body.classList.add("held") } if (held.moved) { tip(null); view(held.from + d, held.to + d) } return }
  pointer = e.offsetX > LEFT ? { t: time(e.offsetX) } : null; tip(hit(e.offsetX, e.offsetY), e); draw() });
const release = e => { down.delete(e.pointerId); body.classList.remove("held"); if (held && !held.moved && e.type === "pointerup") { const h = hit(e.offsetX, e.offsetY); pin(h || null) } if (!down.size) held = null };
body.addEventListener("pointerup", release); body.addEventListener("pointercancel", release);
body.addEventListener("dblclick", e => zoom(.3, time(e.offsetX)));
body.addEventListener("pointerleave", () => { pointer = null; tip(null); draw() });
function tip(what, e) { const t = el("tip"); t.style.display = what ? "block" : "none"; if (!what) return; t.textContent = what.text;
  const r = t.getBoundingClientRect(); t.style.left = Math.max(4, Math.min(e.clientX + 14, innerWidth - r.width - 8)) + "px"; t.style.top = (e.clientY + 18 + r.height > innerHeight ? e.clientY - r.height - 12 : e.clientY + 18) + "px" }
let strip = null; const whole = x => Math.max(0, Math.min(END, (x - LEFT) / (width - LEFT) * END));
head.addEventListener("pointerdown", e => { strip = whole(e.offsetX); head.setPointerCapture(e.pointerId) });
head.addEventListener("pointermove", e => { if (strip === null) return; const t = whole(e.offsetX); if (Math.abs(t - strip) / END * (width - LEFT) > 4) view(Math.min(strip, t), Math.max(strip, t)) });
head.addEventListener("pointerup", e => { if (strip !== null && Math.abs(whole(e.offsetX) - strip) / END * (width - LEFT) <= 4) { const half = (to - from) / 2; view(strip - half, strip + half) } strip = null });
body.addEventListener("keydown", e => {
  const span = to - from, move = k => view(from + span * k, to + span * k);
  const choose = d => { const at = barLanes.indexOf(lanes[chosen]), lane = barLanes[Math.max(0, Math.min(barLanes.length - 1, at < 0 ? 0 : at + d))]; if (!lane || !lane.from.length) { chosen = lanes.indexOf(lane); return draw() }
    const t = pinned ? pinned.lane.from[pinned.i] : (from + to) / 2; show(lane, Math.min(lane.from.length - 1, firstOf(lane.from, t))); chosen = lanes.indexOf(lane) };
  const next = d => { if (!pinned) return choose(0); const i = pinned.i + d; if (i >= 0 && i < pinned.lane.from.length) show(pinned.lane, i) };
  const keys = { ArrowLeft: () => e.shiftKey ? next(-1) : move(-.15), ArrowRight: () => e.shiftKey ? next(1) : move(.15), ArrowUp: () => choose(-1), ArrowDown: () => choose(1), "+": () => zoom(.6), "=": () => zoom(.6), "-": () => zoom(1.6),
    0: () => view(0, END), Home: () => view(0, span), End: () => view(END - span, END), u: nextUnknown, v: () => el("violated").click(), Escape: () => pin(null) };
  if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); keys[e.key]() } });
const everyUnknown = D.lanes.flatMap(l => Array.from(l.style, (s, i) => s === UNKNOWN ? { lane: l, i } : null).filter(Boolean)).sort((a, b) => a.lane.from[a.i] - b.lane.from[b.i]);
let unknownAt = -1;
function nextUnknown() { if (!everyUnknown.length) return; unknownAt = (unknownAt + 1) % everyUnknown.length; const u = everyUnknown[unknownAt]; show(u.lane, u.i); el("matches").textContent = `unknown outcome ${unknownAt + 1} of ${everyUnknown.length}` }
el("whole").onclick = () => view(0, END); el("closer").onclick = () => zoom(.5); el("wider").onclick = () => zoom(2);
el("unknown").onclick = nextUnknown; el("unknown").disabled = !everyUnknown.length; if (everyUnknown.length) el("unknown").textContent = `next unknown (${everyUnknown.length})`;
const places = violated.filter(v => v.at !== null); let place = -1;
el("violated").disabled = !places.length; el("violated").onclick = () => { if (places.length) jump(places[place = (place + 1) % places.length]) };
// What is looked for stays bright, all else fades; Enter goes to the next.
el("find").placeholder = D.find; let found = [], foundAt = -1;
function find(text) {
  found = []; foundAt = -1;
  const wanted = text.trim() && new RegExp(text.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + "(?!\\d)", "i");
  for (const l of D.lanes) { l.hits = wanted ? Uint8Array.from(l.text, t => wanted.test(t) ? 1 : 0) : null; if (wanted) l.hits.forEach((h, i) => h && found.push({ lane: l, i })) }
  found.sort((a, b) => a.lane.from[a.i] - b.lane.from[b.i]); el("matches").textContent = wanted ? `${number(found.length)} found` : ""; draw();
}
let typing; el("find").oninput = e => { clearTimeout(typing); typing = setTimeout(() => find(e.target.value), 180) };
el("find").onkeydown = e => { if (e.key !== "Enter") return; e.preventDefault(); clearTimeout(typing); if (foundAt < 0) find(e.target.value); if (!found.length) return; foundAt = (foundAt + (e.shiftKey ? found.length - 1 : 1)) % found.length; const f = found[foundAt]; show(f.lane, f.i); el("matches").textContent = `${foundAt + 1} of ${number(found.length)}` };
function legend() {
  const swatch = (text, style, cls = "") => { const s = node("span"), i = node("i", "", cls); Object.assign(i.style, style); s.append(i, text); return s };
  const stripes = `repeating-linear-gradient(135deg, ${css("s-unknown")} 0 2px, transparent 2px 4.5px)`;
  el("legend").replaceChildren(...D.styles.map(([name, text]) => swatch(text, name === "unknown" ? { background: stripes } : { background: css("s-" + name) })),
    swatch("fault", { background: css("fault-fill") }), swatch("without effect", { border: `1px dashed ${css("fault-fill")}` }),
    ...(D.samples.length ? [swatch("leads, a colour per term", { background: termColour(2) }), swatch("answers", { background: css("alive") })] : []),
    swatch("median", { background: css("p50") }, "line"), swatch("99 %", { background: css("p99") }, "line"), swatch("slowest", { background: css("max"), width: "5px", height: "5px" }));
}
addEventListener("resize", draw);
colours(); legend(); pin(null); draw();
