"use strict";
/* What the pages share: elements, charts, the slices of a tomogram with marks on them. */
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PERCENT = 100;
  const find = (id) => document.getElementById(id);

  /* ---- small helpers ---- */
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (name, attributes = {}, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  const percent = (part, whole) => (whole > 0 ? Math.round((PERCENT * part) / whole) + "%" : "-");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  /* places (n, 3) in voxels, as page.packed_places has them */
  const places = (packed, count, size) => {
    const view = new DataView(packed.buffer), found = [];
    for (let i = 0; i < count; i++) {
      found.push([0, 1, 2].map((axis) => (view.getUint16(6 * i + 2 * axis, true) / 65535) * size[axis] - 0.5));
    }
    return found;
  };

  /* ---- charts, as SVG ---- */
  const nice = (most) => {
    const power = 10 ** Math.floor(Math.log10(most || 1));
    return [1, 2, 5, 10].map((n) => n * power).find((n) => n * 1.0001 >= most);
  };
  const spacing = ([low, high]) => nice((high - low) / 5);
  const ticks = (range) => {
    const by = spacing(range), found = [];
    for (let i = Math.ceil(range[0] / by - 1e-6); i * by <= range[1] + 1e-6 * by; i++) found.push(i * by);
    return found;
  };
  const rounded = (low, high) => {
    const by = spacing([low, high]);
    return [Math.floor(low / by) * by, Math.ceil(high / by) * by];
  };
  const label = (value) =>
    value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1).replace(".0", "") : String(Number(value.toPrecision(3)));
  const chart = (figure, { title, bars, lines, dots, x, y, xLabel, yLabel, mark, root }) => {
    const steps = root ? [0, 0.05, 0.2, 0.5, 1].map((share) => share * y[1]) : ticks(y);
    const longest = Math.max(...steps.map((at) => label(at).length));
    const width = 460, height = 230, left = Math.max(48, 26 + 7 * longest), right = 12, top = 10, bottom = 40;
    const shape = (value) => (root ? Math.sqrt(Math.max(value, 0)) : value);
    const px = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
    const py = (value) =>
      height - bottom - ((shape(value) - shape(y[0])) / (shape(y[1]) - shape(y[0]) || 1)) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    for (const at of ticks(x)) {
      svg.append(draw("text", { x: px(at), y: height - bottom + 16, "text-anchor": "middle" }, label(at)));
    }
    for (const at of steps) {
      svg.append(draw("path", { class: "axis", d: `M${left} ${py(at)}H${width - right}` }));
      svg.append(draw("text", { x: left - 6, y: py(at) + 4, "text-anchor": "end" }, label(at)));
    }
    for (const bar of bars || []) {
      const h = py(y[0]) - py(bar.value);
      if (bar.value > 0) {
        svg.append(draw("rect", {
          class: bar.on ? "on" : "off", x: px(bar.from) + 0.5, width: Math.max(px(bar.to) - px(bar.from) - 1, 0.5),
          y: py(bar.value), height: Math.max(h, 0.8),
        }));
      }
    }
    for (const { points, style } of lines || []) {
      svg.append(draw("path", { class: style || "line", d: "M" + points.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("L") }));
    }
    if (mark !== undefined && mark >= x[0] && mark <= x[1]) {
      svg.append(draw("path", { class: "cut", d: `M${px(mark)} ${top}V${height - bottom}` }));
    }
    const rows = []; // of text beside dots, which may lie close together
    for (const { at, text, style } of dots || []) {
      const [cx, cy] = [px(at[0]), py(at[1])], far = cx > 0.4 * width;
      let row = cy + 16;
      while (rows.some((other) => Math.abs(other - row) < 14)) row++;
      rows.push(row);
      svg.append(draw("circle", { class: style, cx, cy, r: 5 }));
      svg.append(draw("text", { class: "named", x: cx + (far ? -9 : 9), y: row, "text-anchor": far ? "end" : "start" }, text));
    }
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
    const turned = draw("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel);
    svg.append(turned);
    figure.replaceChildren(make("figcaption", {}, title), svg);
  };

  /* ---- training curves: each value as it is, and its moving mean ---- */
  const smoothed = (points) => {
    const half = Math.floor(points.length / 30);
    return points.map(([step], i) => {
      const near = points.slice(Math.max(0, i - half), i + half + 1);
      return [step, near.reduce((sum, [, value]) => sum + value, 0) / near.length];
    });
  };
  const curves = (all) => {
    for (const { name, value, lines } of all) {
      const figure = make("figure"), smooth = lines.map(smoothed), values = lines.flat().map(([, number]) => number);
      const low = Math.min(...values), high = Math.max(...values), root = low >= 0;
      const told = (which) => smooth.map((line) => label(line.at(which)[1])).join(" and ");
      find("curves").append(figure);
      chart(figure, {
        title: `${name}: ${value} ${told(0)} at first, ${told(-1)} at the end`,
        lines: [...lines.map((points) => ({ points, style: "faint" })), ...smooth.map((points) => ({ points }))],
        x: [0, Math.max(...lines.flat().map(([step]) => step))],
        y: root ? [0, nice(high)] : rounded(low, high > low ? high : low + 1), xLabel: "step", yLabel: value, root,
      });
    }
  };

  /* ---- slices of a tomogram, with marks ---- */
  const AXES = "xyz";
  const nm = (voxels, t) => (voxels * t.voxel) / 10;
  const scaleBar = (context, t, width, across, ratio) => {
    const wanted = nm(t.size[across], t) / 5;
    const length = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].reduce((a, b) =>
      Math.abs(Math.log(b / wanted)) < Math.abs(Math.log(a / wanted)) ? b : a);
    const pixels = (length / nm(t.size[across], t)) * width;
    const x = 10 * ratio, y = context.canvas.height - 10 * ratio;
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    for (const [style, extra] of [["#000", 2.5 * ratio], ["#fff", 0]]) {
      context.strokeStyle = style;
      context.lineWidth = 3 * ratio + extra;
      context.beginPath(); context.moveTo(x, y); context.lineTo(x + pixels, y); context.stroke();
      context.lineWidth = extra;
      if (extra) context.strokeText(`${length} nm`, x, y - 6 * ratio);
      else { context.fillStyle = style; context.fillText(`${length} nm`, x, y - 6 * ratio); }
    }
  };
  /* dims what is left out, and hatches it */
  const hatch = (context, mask, ratio) => {
    const { width, height } = context.canvas, layer = make("canvas", { width, height }), over = layer.getContext("2d");
    over.imageSmoothingEnabled = false;
    over.drawImage(mask, 0, 0, width, height);
    context.globalAlpha = 0.45;
    context.drawImage(layer, 0, 0);
    over.globalCompositeOperation = "source-in";
    const side = Math.round(8 * ratio), tile = make("canvas", { width: side, height: side }), line = tile.getContext("2d");
    line.strokeStyle = "#fff"; line.lineWidth = ratio;
    for (const shift of [-side, 0, side]) {
      line.beginPath(); line.moveTo(shift, side); line.lineTo(shift + side, 0); line.stroke();
    }
    over.fillStyle = over.createPattern(tile, "repeat");
    over.fillRect(0, 0, width, height);
    context.globalAlpha = 0.5;
    context.drawImage(layer, 0, 0);
    context.globalAlpha = 1;
  };
  /* a ring is the section of a ball of the particle's diameter; crosses say what places are */
  const shapes = {
    ring: (context, x, y, radius) => context.arc(x, y, radius, 0, 2 * Math.PI),
    plus: (context, x, y, radius) => {
      const arm = Math.max(0.35 * radius, 3);
      context.moveTo(x - arm, y); context.lineTo(x + arm, y); context.moveTo(x, y - arm); context.lineTo(x, y + arm);
    },
    cross: (context, x, y, radius) => {
      const arm = Math.max(0.3 * radius, 3);
      context.moveTo(x - arm, y - arm); context.lineTo(x + arm, y + arm); context.moveTo(x - arm, y + arm); context.lineTo(x + arm, y - arm);
    },
  };
  const stroke = (context, style, x, y, radius, ratio) => {
    context.setLineDash(style.dashed ? [3 * ratio, 3 * ratio] : []);
    for (const shape of style.shapes || ["ring"]) {
      context.beginPath();
      shapes[shape](context, x, y, radius);
      if (shape !== "ring") {
        context.strokeStyle = "#000"; context.lineWidth = (style.width + 1.6) * ratio;
        context.stroke();
      }
      context.strokeStyle = style.colour; context.lineWidth = style.width * ratio; context.globalAlpha = style.alpha || 1;
      context.stroke();
      context.globalAlpha = 1;
    }
    context.setLineDash([]);
  };

  /* Shows one tomogram after the other.
     marks(t): places with what they are drawn as; those of a `kind` are counted in the captions, by its name in `kinds`.
     about(t): a line on it. changed(t): draws the rest of the page. opened(t): as that, once when it is turned to.
     parts: elements that a tomogram without pictures has none of. */
  const viewer = ({ marks, kinds, about, changed, opened, parts }) => {
    const tomograms = data.tomograms, panels = {};
    let open = 0, marked = [];
    const paint = (name) => {
      const panel = panels[name], t = tomograms[open];
      const ready = (image) => image.complete && image.naturalWidth > 0;
      if (!panel || !t.view || !ready(panel.image) || (panel.out && !ready(panel.mask))) return;
      const plane = t.view.planes[name], [h, v] = [...name].map((axis) => AXES.indexOf(axis)), axis = 3 - h - v;
      const canvas = panel.canvas, ratio = window.devicePixelRatio || 1;
      const shape = t.size[v] / t.size[h], tallest = Math.max(300, Math.min(560, 0.75 * window.innerHeight));
      const shown = Math.min(canvas.parentElement.clientWidth, tallest / shape);
      const width = Math.max(1, Math.round(shown * ratio)), height = Math.max(1, Math.round(shown * shape * ratio));
      canvas.width = width; canvas.height = height;
      canvas.style.width = panel.slider.style.width = `${shown}px`;
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(panel.image, 0, 0, width, height);
      if (panel.out) hatch(context, panel.mask, ratio);
      const middle = plane.at[panel.number], radius = data.diameter / t.voxel / 2;
      // from half-way to the slice before to half-way to the next one, or to the face
      const half = (other, face) => (other === undefined ? face : (middle + other) / 2);
      const from = half(plane.at[panel.number - 1], -Infinity), to = half(plane.at[panel.number + 1], Infinity);
      const scale = width / t.size[h];
      const near = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, 0]));
      for (const one of marked) {
        const off = Math.abs(one.at[axis] - middle);
        if (off > radius && (one.at[axis] < from || one.at[axis] > to)) continue;
        if (one.kind) near[one.kind]++;
        const across = Math.max(Math.sqrt(Math.max(radius * radius - off * off, 0)), 0.4 * radius);
        stroke(context, one, (one.at[h] + 0.5) * scale, height - (one.at[v] + 0.5) * scale, across * scale, ratio);
      }
      scaleBar(context, t, width, h, ratio);
      const place = `${AXES[axis]} = ${Math.round(middle)}`;
      const told = Object.entries(kinds).map(([kind, noun]) => `${near[kind]} ${noun}`).join(", ");
      panel.caption.textContent = `${name[0]}–${name[1]} at ${place} of ${t.size[axis]}, ${nm(plane.thickness, t).toFixed(0)} nm thick: ${told} near`;
      canvas.setAttribute("aria-label", `Slice of ${t.name} in ${name[0]} and ${name[1]}, ${place}, with ${told}`);
      canvas.dataset.near = Object.values(near).reduce((sum, number) => sum + number, 0);
      canvas.dataset.out = panel.out ? 1 : 0;
    };
    const turnTo = (name, number) => {
      const panel = panels[name], plane = tomograms[open].view.planes[name];
      panel.number = Math.min(Math.max(number, 0), plane.at.length - 1);
      panel.slider.value = panel.number;
      panel.slider.setAttribute("aria-valuetext", `${panel.number + 1} of ${plane.at.length}`);
      panel.out = plane.left_out[panel.number];
      if (panel.out) panel.mask.src = panel.out;
      panel.image.src = plane.slices[panel.number];
    };
    const build = (t) => {
      find("slices").replaceChildren();
      for (const name of Object.keys(panels)) delete panels[name];
      for (const [name, plane] of Object.entries(t.view ? t.view.planes : {})) {
        const canvas = make("canvas", { class: "slice", role: "img" });
        const slider = make("input", { type: "range", min: 0, max: plane.at.length - 1, step: 1, "aria-label": `Slice in ${name[0]} and ${name[1]}` });
        const caption = make("figcaption");
        panels[name] = { canvas, slider, caption, image: new Image(), mask: new Image(), number: 0 };
        for (const image of [panels[name].image, panels[name].mask]) image.addEventListener("load", () => paint(name));
        slider.addEventListener("input", () => turnTo(name, Number(slider.value)));
        find("slices").append(make("figure", {}, canvas, slider, caption));
        turnTo(name, Math.floor(plane.at.length / 2));
      }
    };
    const refresh = () => {
      const t = tomograms[open];
      find("about").textContent = about(t);
      marked = t.view ? marks(t) : [];
      Object.keys(panels).forEach(paint);
      changed(t);
    };
    const show = (number, jump) => {
      open = (number + tomograms.length) % tomograms.length;
      const t = tomograms[open];
      find("viewed").textContent = t.name;
      find("which").value = open;
      document.querySelectorAll("tr[data-row]").forEach((row) => row.classList.toggle("shown", Number(row.dataset.row) === open));
      for (const id of ["slices", "legend", ...parts]) find(id).hidden = !t.view;
      find("blank").hidden = Boolean(t.view);
      find("excluded").textContent = t.excluded;
      find("excluded").hidden = !t.excluded;
      build(t);
      opened(t);
      refresh();
      if (jump) { find("viewer").scrollIntoView(); find("viewed").focus({ preventScroll: true }); }
    };
    // the part of the address after # names the tomogram, so that a link can lead to it
    const linked = () => {
      let name = location.hash.slice(1);
      try { name = decodeURIComponent(name); } catch { /* a name that was typed with a % of its own */ }
      return tomograms.findIndex((t) => t.name === name);
    };
    const choose = (number, jump) => {
      show(number, jump);
      // last: it may be refused, such as in a frame; setting location.hash would scroll to what has such an id
      history.replaceState(null, "", "#" + encodeURIComponent(tomograms[open].name));
    };
    tomograms.forEach((t, i) => find("which").append(make("option", { value: i }, t.name)));
    find("which").addEventListener("change", () => choose(Number(find("which").value)));
    find("previous").addEventListener("click", () => choose(open - 1));
    find("next").addEventListener("click", () => choose(open + 1));
    document.querySelectorAll("[data-open]").forEach((button) => button.addEventListener("click", () => choose(Number(button.dataset.open), true)));
    window.addEventListener("hashchange", () => { if (linked() >= 0) show(linked(), true); });
    const fit = () => {
      Object.keys(panels).forEach(paint);
      document.querySelectorAll(".scroll").forEach((box) => { box.nextElementSibling.hidden = box.scrollWidth <= box.clientWidth; });
    };
    let resized;
    window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(fit, 100); });
    const start = () => {
      find("viewer").hidden = tomograms.length === 0;
      if (linked() >= 0) show(linked(), true);
      else if (tomograms.length) show(Math.max(tomograms.findIndex((t) => t.view), 0));
      fit();
    };
    return { refresh, start };
  };
  /* what the marks mean: [style, words] each */
  const legend = (keys) => find("keys").replaceChildren(...keys.map(([style, words]) => {
    const canvas = make("canvas", { width: 36, height: 36, "aria-hidden": "true" }), context = canvas.getContext("2d");
    context.fillStyle = "#808080"; context.fillRect(0, 0, 36, 36);
    if (style === "hatched") {
      const mask = make("canvas", { width: 1, height: 1 });
      mask.getContext("2d").fillRect(0, 0, 1, 1);
      hatch(context, mask, 2);
    } else stroke(context, style, 18, 18, 12, 2);
    return make("span", {}, canvas, words);
  }));

  const copying = () => document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => {
    const text = button.parentElement.querySelector("pre");
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
    const select = () => { const range = document.createRange(); range.selectNodeContents(text); getSelection().removeAllRanges(); getSelection().addRange(range); };
    // a page that was opened from a disk may not be allowed to copy: then the text is selected for the user to do it
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(done, select);
    else select();
  }));
  return { data, find, make, percent, bytes, places, nice, rounded, label, nm, chart, curves, viewer, legend, copying };
})();
