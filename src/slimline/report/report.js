"use strict";
(() => {
  const source = document.getElementById("front-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const box = document.getElementById("front-chart");
  const detail = document.getElementById("front-detail");
  const NS = "http://www.w3.org/2000/svg";
  const points = data.points.slice().sort((a, b) => a.x - b.x || b.y - a.y);
  const byTrial = new Map(points.map((p) => [p.trial, p]));
  let chosen = null;

  // Markers of equal area: r is the radius of the circle with that area.
  const polygon = (corners, r, turn) => {
    const R = r * Math.sqrt((2 * Math.PI) / (corners * Math.sin((2 * Math.PI) / corners)));
    const at = (k) => { const a = turn + (2 * Math.PI * k) / corners; return `${(R * Math.sin(a)).toFixed(2)} ${(-R * Math.cos(a)).toFixed(2)}`; };
    return `M${Array.from({ length: corners }, (_, k) => at(k)).join("L")}Z`;
  };
  const cross = (r) => { const a = r * 0.4, b = r * 1.25; return `M${-a} ${-b}H${a}V${-a}H${b}V${a}H${a}V${b}H${-a}V${a}H${-b}V${-a}H${-a}Z`; };
  const marker = (shape, r) => ({
    circle: () => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    square: () => polygon(4, r, Math.PI / 4), diamond: () => polygon(4, r, 0), triangle: () => polygon(3, r, 0),
    pentagon: () => polygon(5, r, 0), cross: () => cross(r),
  })[shape]();
  document.querySelectorAll("[data-shape]").forEach((path) => path.setAttribute("d", marker(path.dataset.shape, 5)));

  const add = (parent, name, attributes, text) => {
    const node = parent.namespaceURI === NS || name === "svg" ? document.createElementNS(NS, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;  // never markup: names come from the network
    parent.append(node);
    return node;
  };

  const logTicks = (low, high, most) => {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) all.push({ m, v: m * 10 ** e });
    const inside = all.filter((t) => t.v >= low && t.v <= high);
    if (inside.length < 3) return ticks(low, high, 4).found;
    return (inside.length > most ? inside.filter((t) => t.m === 1) : inside).map((t) => t.v);
  };
  const ticks = (low, high, most) => {
    const raw = (high - low) / most, base = 10 ** Math.floor(Math.log10(raw));
    const step = base * [1, 2, 5, 10].find((m) => m * base >= raw);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
    return { found, decimals: Math.max(0, -Math.floor(Math.log10(step * (data.percent ? 100 : 1)) + 1e-9)) };
  };
  const scoreText = (v, decimals) => (data.percent ? `${(100 * v).toFixed(decimals)}%` : v.toFixed(decimals)).replace("-", "\u2212");

  // One hopeless trial must not flatten the rest: what lies far below the others goes to a strip at the bottom.
  const scoreRange = () => {
    const good = points.filter((p) => p.status !== "dropped" || p.front).map((p) => p.y);
    const main = (good.length ? good : points.map((p) => p.y)).concat(data.budget === null ? [] : [data.budget]);
    let low = Math.min(...main), high = Math.max(...main, ...points.map((p) => p.y));
    const reach = low - 2 * Math.max(high - low, 1e-9);
    const near = points.map((p) => p.y).filter((y) => y >= reach);
    low = Math.min(low, ...near);
    const pad = 0.09 * (high - low) || Math.abs(high) * 0.01 || 1;
    return { low: low - pad, high: high + 0.3 * pad, reach: Math.min(reach, low - pad) };
  };

  const overlap = (a, b) => Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

  // Best first, then the originals, those that stand alone before those in a crowd: the nearest place around the mark where neither the text nor its leader covers anything.
  const label = (svg, placed, frame, small) => {
    const taken = placed.map(({ p, x, y, r }) => ({ x: x - r - 4, y: y - r - 4, w: 2 * r + 8, h: 2 * r + 8, p }));
    const crowd = ({ p, x, y, r }) => (p.status === "best" ? -1 : taken.filter((t) => overlap(t, { x: x - r, y: y - r, w: 2 * r, h: 2 * r })).length);
    const named = placed.filter(({ p }) => p.label).sort((a, b) => crowd(a) - crowd(b) || a.p.x - b.p.x);
    const ways = [[0, -1], [0, 1], [1, 0], [-1, 0], [0.8, -0.8], [-0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]];
    for (const { p, x, y, r } of named) {
      const text = add(svg, "text", { class: "mark" }, small ? p.label.split(",")[0] : p.label), w = text.getComputedTextLength(), h = 16;
      const spots = [0, 16, 32, 52, 76].flatMap((far) => ways.map(([dx, dy]) => {
        const cx = x + dx * (r + 7 + far + w / 2), cy = y + dy * (r + 7 + far + (dx ? 0 : 6));
        const left = Math.min(Math.max(cx - w / 2, frame.left), frame.right - w), top = cy - h / 2;
        const tx = Math.min(Math.max(x, left), left + w), ty = top > y ? top : Math.min(top + h, y);
        const length = Math.hypot(tx - x, ty - y) || 1, from = Math.min(1, (r + 3) / length);
        const at = (k) => ({ x: x + (tx - x) * k, y: y + (ty - y) * k });
        const leader = far ? [0, 1, 2, 3, 4, 5, 6].map((k) => at(from + ((1 - from) * k) / 6)) : [];
        return { x: left, y: top, w, h, far, leader: leader.map((q) => ({ x: q.x - 2, y: q.y - 2, w: 4, h: 4 })), ends: [at(from), at(1)] };
      }));
      const others = taken.filter((t) => t.p !== p), own = { x: x - r, y: y - r, w: 2 * r, h: 2 * r };
      const crossed = others.filter((t) => !overlap(t, own));  // a leader cannot avoid what lies on its own mark
      const cost = (s) => others.reduce((sum, t) => sum + overlap(s, t), overlap(s, own))
        + 20 * crossed.reduce((sum, t) => s.leader.reduce((all, q) => all + overlap(q, t), sum), 0) + (s.y < frame.top || s.y + h > frame.bottom ? 1e6 : 0);
      const spot = spots.reduce((a, b) => (cost(b) < cost(a) ? b : a));
      if (cost(spot) > 0 && p.status !== "best") { text.remove(); continue; }
      text.setAttribute("x", spot.x); text.setAttribute("y", spot.y + 12);
      if (spot.far) {
        const [a, b] = spot.ends;
        svg.insertBefore(add(svg, "line", { class: "lead-line", x1: a.x, y1: a.y, x2: b.x, y2: b.y }), text);
      }
      taken.push({ ...spot, p }, ...spot.leader);
    }
  };

  const show = (p) => {
    chosen = p;
    detail.replaceChildren();
    const head = add(detail, "h3");
    add(add(head, "svg", { width: 18, height: 18, viewBox: "-9 -9 18 18", "aria-hidden": "true" }), "path", { class: `fill-${p.colour}`, d: marker(p.shape, 5.5) });
    add(head, "span", {}, p.title);
    const list = add(detail, "dl", { class: "facts" });
    for (const [name, value] of p.facts) { add(list, "dt", {}, name); add(list, "dd", {}, value); }
    const steps = add(detail, "ol", { class: "recipe mono" });
    for (const line of p.recipe) add(steps, "li", {}, line);
    add(detail, "a", { href: `#trial-${p.trial}`, class: "small" }, "Show in the table");
    box.querySelectorAll(".point-mark").forEach((node) => node.setAttribute("tabindex", Number(node.dataset.trial) === p.trial ? 0 : -1));
    ring();
  };
  const ring = () => {
    box.querySelector(".ring.now")?.remove();
    const node = chosen && box.querySelector(`[data-trial="${chosen.trial}"]`);
    if (node) add(node.parentNode, "circle", { class: "ring now", r: Number(node.dataset.r) + 5, transform: node.getAttribute("transform") });
  };

  const draw = () => {
    const width = Math.max(260, box.clientWidth), height = Math.round(Math.min(470, Math.max(340, width * 0.66)));
    const small = width < 480, rangeY = scoreRange();
    const below = points.some((p) => p.y < rangeY.reach);
    const frame = { left: small ? 46 : 56, right: width - 14, top: 24, bottom: height - 44 - (below ? 34 : 0) };
    rangeY.high += ((rangeY.high - rangeY.low) * 34) / (frame.bottom - frame.top - 34);  // room for labels above the best scores
    const xs = points.map((p) => p.x), pad = Math.max(1.18, (Math.max(...xs) / Math.min(...xs)) ** 0.07);
    const lowX = Math.log(Math.min(...xs) / pad), highX = Math.log(Math.max(...xs) * pad);
    const X = (v) => frame.left + ((Math.log(v) - lowX) / (highX - lowX)) * (frame.right - frame.left);
    const Y = (v) => frame.bottom - ((v - rangeY.low) / (rangeY.high - rangeY.low)) * (frame.bottom - frame.top);
    const pointY = (p) => (p.y < rangeY.reach ? frame.bottom + 20 : Y(p.y));
    box.replaceChildren();
    const svg = add(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Latency against score, one mark per trial" });
    add(svg, "text", { x: 0, y: 12 }, data.y_label);
    const scale = ticks(rangeY.low, rangeY.high, 5);
    for (const v of scale.found) {
      add(svg, "line", { class: "grid", x1: frame.left, x2: frame.right, y1: Y(v), y2: Y(v) });
      add(svg, "text", { x: frame.left - 8, y: Y(v) + 4, "text-anchor": "end" }, scoreText(v, scale.decimals));
    }
    const floor = height - 44;
    let last = -Infinity;
    for (const v of logTicks(Math.exp(lowX), Math.exp(highX), small ? 6 : 10)) {
      add(svg, "line", { class: "grid", x1: X(v), x2: X(v), y1: 24, y2: frame.bottom });
      if (X(v) - last < 34) continue;
      last = X(v);
      add(svg, "text", { x: X(v), y: floor + 18, "text-anchor": "middle" }, String(Number(v.toPrecision(3))));
    }
    add(svg, "line", { class: "edge", x1: frame.left, x2: frame.right, y1: floor, y2: floor });
    add(svg, "text", { x: frame.right, y: floor + 38, "text-anchor": "end" }, data.x_label);
    if (below) {
      add(svg, "rect", { class: "below", x: frame.left, y: frame.bottom + 4, width: frame.right - frame.left, height: 30 });
      add(svg, "text", { x: frame.left - 8, y: frame.bottom + 24, "text-anchor": "end" }, "lower");
    }
    if (data.budget !== null) add(svg, "line", { class: "budget", x1: frame.left, x2: frame.right, y1: Y(data.budget), y2: Y(data.budget) });
    add(svg, "polyline", { class: "front-line", points: data.line.map((t) => byTrial.get(t)).map((p) => `${X(p.x)},${pointY(p)}`).join(" ") });
    const most = small ? 12 : 15;
    const placed = points.map((p) => ({ p, x: X(p.x), y: pointY(p), r: Math.max(4, most * Math.sqrt(p.share)) }));
    // Large marks first, so that small ones stay on top of them.
    for (const { p, x, y, r } of placed.slice().sort((a, b) => b.r - a.r)) {
      const classes = `point-mark ${p.status} fill-${p.colour}${p.front ? " on-front" : ""}`;
      const node = add(svg, "path", { class: classes, d: marker(p.shape, r), transform: `translate(${x} ${y})`, tabindex: -1, role: "img", "aria-label": p.aria, "data-trial": p.trial, "data-r": r });
      node.addEventListener("focus", () => show(p));
      if (p.status === "best") add(svg, "circle", { class: "ring best", r: r + 4, transform: `translate(${x} ${y})` });
    }
    if (data.budget !== null) add(svg, "text", { x: frame.right - 4, y: Y(data.budget) + 15, "text-anchor": "end", class: "over" }, data.budget_label);
    label(svg, placed, { ...frame, top: 20, bottom: floor }, small);
    const nearest = (event, reach) => {
      const at = svg.getBoundingClientRect(), ratio = width / at.width;
      const far = (q) => Math.hypot((event.clientX - at.left) * ratio - q.x, (event.clientY - at.top) * ratio - q.y);
      const best = placed.reduce((a, b) => (far(b) < far(a) ? b : a));
      return far(best) <= Math.max(reach, best.r) ? best.p : null;
    };
    svg.addEventListener("pointermove", (event) => { const p = nearest(event, 22); if (p && p !== chosen) show(p); });
    svg.addEventListener("pointerdown", (event) => { const p = nearest(event, 30); if (p) show(p); });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!step || !chosen) return;
      event.preventDefault();
      const next = points[(points.indexOf(chosen) + step + points.length) % points.length];
      box.querySelector(`[data-trial="${next.trial}"]`).focus();
    });
  };

  if (points.length) {
    let drawn = 0;
    const redraw = () => {
      if (box.clientWidth === drawn) return;
      drawn = box.clientWidth;
      const focused = box.contains(document.activeElement);
      draw();
      show(chosen || points.find((p) => p.status === "best") || points[0]);
      if (focused) box.querySelector('[tabindex="0"]').focus();
    };
    redraw();
    new ResizeObserver(redraw).observe(box);
  } else {
    box.textContent = "No trial has both a latency and a score.";
  }

})();

(() => {
  // Columns sort by data-sort where it is there, else by their text; what was not measured always comes last.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => { const cell = row.cells[column]; return cell.dataset.sort !== undefined ? (cell.dataset.sort === "" ? null : Number(cell.dataset.sort)) : cell.textContent; };
      const order = (a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null);
        const sign = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return down ? -sign : sign;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    }));
  });
})();
