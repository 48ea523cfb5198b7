(() => {
  const source = document.getElementById("training-data"), root = document.getElementById("training-plots");
  if (!source || !root) return;
  const curves = JSON.parse(source.textContent).curves;
  const detail = document.getElementById("training-detail"), legend = root.querySelector(".legend");
  let chosen = null;  // { kind, curve, index }

  // The lines are in the page already; the places of their points are read from there.
  const plots = [...root.querySelectorAll(".plot")].map((box) => {
    const frame = box.querySelector(".frame"), svg = frame.querySelector("svg");
    const lines = new Map([...svg.querySelectorAll("g")].map((group) => {
      const points = [...group.querySelector("polyline").points].map(({ x, y }) => ({ x: x / svg.viewBox.baseVal.width, y }));
      return [Number(group.dataset.curve), points];
    }));
    return { kind: box.dataset.kind, view: box.parentNode, frame, svg, lines };
  });
  const stepsOf = (kind, curve) => (kind === "score" ? curves[curve].judged : curves[curve].steps);
  const count = (n) => n.toLocaleString("en");

  const add = (parent, name, attributes, text) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;  // never markup: names come from outside
    parent.append(node);
    return node;
  };
  const until = (steps, step) => { let found = -1; steps.forEach((s, k) => { if (s <= step) found = k; }); return found; };

  const facts = ({ kind, curve, index }) => {
    const c = curves[curve], step = stepsOf(kind, curve)[index], exact = (at) => (at === step ? "" : ` at step ${count(at)}`);
    const judged = kind === "score" ? index : until(c.judged, step), window = kind === "score" ? until(c.steps, step) : index;
    const found = [["Step", `${count(step)} of ${c.planned}`]];
    if (judged >= 0) found.push(["Score", c.score[judged] + exact(c.judged[judged])]);
    if (window >= 0) {
      found.push(["Loss", c.loss[window] + exact(c.steps[window])], ["Learning rate", c.rate[window]]);
      if (c.sparsity.length) found.push(["Zero weights", c.sparsity[window]]);
    }
    return found;
  };

  const show = (point) => {
    chosen = point;
    detail.replaceChildren();
    const inner = add(detail, "div"), head = add(inner, "h3");
    head.append(legend.children[point.curve].querySelector("svg").cloneNode(true));
    add(head, "span", {}, ` ${curves[point.curve].name}`);
    const list = add(inner, "dl", { class: "facts" });
    for (const [name, value] of facts(point)) { add(list, "dt", {}, name); add(list, "dd", {}, value); }
    for (const [name, value] of curves[point.curve].facts) { add(list, "dt", { class: "more" }, name); add(list, "dd", { class: name === "Method" ? "more mono" : "more" }, value); }
    root.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    root.querySelectorAll(`[data-curve="${point.curve}"]`).forEach((node) => node.classList.add("on"));
    plots.forEach(({ svg }) => { const group = svg.querySelector("g.on"); if (group) svg.append(group); });  // on top of the others
    root.querySelectorAll(".hair, .now").forEach((node) => node.remove());
    for (const { kind, view, frame } of plots) {
      const at = plots.find((p) => p.view === view && p.kind === point.kind).lines.get(point.curve)[point.index];
      add(frame, "i", { class: "hair", style: `left:${100 * at.x}%` });
      if (kind === point.kind) add(frame, "i", { class: "now", style: `left:${100 * at.x}%;top:${at.y}px` });
    }
  };

  const nearest = (plot, event, reach) => {
    const box = plot.svg.getBoundingClientRect(), far = (p) => Math.hypot(event.clientX - box.left - p.x * box.width, event.clientY - box.top - p.y);
    let best = null;
    for (const [curve, points] of plot.lines) points.forEach((p, index) => { const d = far(p); if (d <= reach && (!best || d < best.d)) best = { d, kind: plot.kind, curve, index }; });
    return best;
  };
  const same = (a, b) => a && b && a.kind === b.kind && a.curve === b.curve && a.index === b.index;

  // Along a line, or to the next line at about the same step.
  const moved = (plot, key) => {
    const ids = [...plot.lines.keys()], here = chosen && chosen.kind === plot.kind ? chosen : { kind: plot.kind, curve: ids[0], index: -1 };
    const steps = stepsOf(plot.kind, here.curve), last = steps.length - 1;
    const index = { ArrowRight: Math.min(here.index + 1, last), ArrowLeft: Math.max(here.index - 1, 0), Home: 0, End: last }[key];
    if (index !== undefined) return { ...here, index };
    const curve = ids[(ids.indexOf(here.curve) + (key === "ArrowDown" ? 1 : -1) + ids.length) % ids.length];
    return { kind: plot.kind, curve, index: Math.max(0, until(stepsOf(plot.kind, curve), steps[Math.max(0, here.index)])) };
  };

  for (const plot of plots) {
    plot.svg.setAttribute("tabindex", 0);
    plot.svg.addEventListener("pointermove", (event) => { const p = nearest(plot, event, 24); if (p && !same(p, chosen)) show(p); });
    plot.svg.addEventListener("pointerdown", (event) => { const p = nearest(plot, event, 36); if (p) show(p); });
    plot.svg.addEventListener("keydown", (event) => {
      if (!["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
      event.preventDefault();
      show(moved(plot, event.key));
    });
  }
  const end = (curve) => {
    const plot = plots.find(({ lines }) => lines.has(curve));
    return plot && { kind: plot.kind, curve, index: plot.lines.get(curve).length - 1 };
  };
  [...legend.children].forEach((entry, curve) => entry.addEventListener("click", () => { const p = end(curve); if (p) show(p); }));
  root.querySelectorAll(".chart, .legend").forEach((node) => node.classList.add("live"));
  const first = curves.map((_, curve) => end(curve)).find(Boolean);
  if (first) show(first);
})();
