"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tomograms = data.tomograms;
  const STEPS = 100, PERCENT = 100;
  const find = (id) => document.getElementById(id);
  let step = null; // of the threshold; null: every tomogram cut as it was picked
  let open = 0;

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
  // blue, white, amber: told apart by the colour-blind and on grey
  const ENDS = [[40, 130, 255], [255, 255, 255], [255, 170, 0]];
  const colour = (score) => {
    const [from, to] = score < 0.5 ? [ENDS[0], ENDS[1]] : [ENDS[1], ENDS[2]], share = score < 0.5 ? 2 * score : 2 * score - 1;
    return `rgb(${from.map((part, i) => Math.round(part + share * (to[i] - part))).join(" ")})`;
  };
  const picksOf = (t) => (step === null ? t.picks : t.counts[step]);
  const particlesOf = (t) => (step === null ? t.particles : t.sums[step]);
  const cutOf = (t) => (step === null ? t.lowest : step / STEPS);

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
  const label = (value) => String(Number(value.toPrecision(3)));
  const chart = (figure, { title, bars, lines, x, y, xLabel, yLabel, mark, root }) => {
    const width = 460, height = 230, left = 48, right = 12, top = 10, bottom = 40;
    const shape = (value) => (root ? Math.sqrt(Math.max(value, 0)) : value);
    const px = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
    const py = (value) =>
      height - bottom - ((shape(value) - shape(y[0])) / (shape(y[1]) - shape(y[0]) || 1)) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    for (const at of ticks(x)) {
      svg.append(draw("text", { x: px(at), y: height - bottom + 16, "text-anchor": "middle" }, label(at)));
    }
    for (const at of root ? [0, 0.05, 0.2, 0.5, 1].map((share) => share * y[1]) : ticks(y)) {
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
    for (const line of lines || []) {
      svg.append(draw("path", { class: "line", d: "M" + line.map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("L") }));
    }
    if (mark !== undefined && mark >= x[0] && mark <= x[1]) {
      svg.append(draw("path", { class: "cut", d: `M${px(mark)} ${top}V${height - bottom}` }));
    }
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
    const turned = draw("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel);
    svg.append(turned);
    figure.replaceChildren(make("figcaption", {}, title), svg);
  };

  /* ---- points of a tomogram ---- */
  const unpack = (t) => {
    if (t.points) return t.points;
    const bytes = Uint8Array.from(atob(t.view.points), (c) => c.charCodeAt(0));
    const count = bytes.length / 7, view = new DataView(bytes.buffer);
    t.points = [];
    for (let i = 0; i < count; i++) {
      const at = [0, 1, 2].map((axis) => (view.getUint16(6 * i + 2 * axis, true) / 65535) * t.size[axis] - 0.5);
      t.points.push({ at, score: bytes[6 * count + i] / 255 });
    }
    return t.points;
  };

  /* ---- slices ---- */
  const AXES = "xyz";
  const panels = {};
  const nm = (voxels, t) => (voxels * t.voxel) / 10;
  const scaleBar = (context, t, width, across) => {
    const wanted = nm(t.size[across], t) / 5;
    const length = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].reduce((a, b) =>
      Math.abs(Math.log(b / wanted)) < Math.abs(Math.log(a / wanted)) ? b : a);
    const ratio = window.devicePixelRatio || 1, pixels = (length / nm(t.size[across], t)) * width;
    const x = 10 * ratio, y = context.canvas.height - 10 * ratio;
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.lineWidth = 3 * ratio;
    for (const [style, extra] of [["#000", 2.5 * ratio], ["#fff", 0]]) {
      context.strokeStyle = style;
      context.lineWidth = 3 * ratio + extra;
      context.beginPath(); context.moveTo(x, y); context.lineTo(x + pixels, y); context.stroke();
      context.lineWidth = extra;
      if (extra) context.strokeText(`${length} nm`, x, y - 6 * ratio);
      else { context.fillStyle = style; context.fillText(`${length} nm`, x, y - 6 * ratio); }
    }
  };
  const paint = (name) => {
    const panel = panels[name], t = tomograms[open];
    if (!panel || !panel.image.complete || !t.view) return;
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
    const middle = plane.at[panel.number], radius = data.diameter / t.voxel / 2;
    const spacing = plane.at.length > 1 ? plane.at[1] - plane.at[0] : t.size[axis];
    const reach = Math.max(radius, spacing / 2), scale = width / t.size[h], picks = picksOf(t);
    let near = 0;
    unpack(t).forEach((point, i) => {
      const off = Math.abs(point.at[axis] - middle), picked = i < picks;
      if (off > reach || !(picked || find("rest").checked)) return;
      if (picked) near++;
      const across = Math.max(Math.sqrt(Math.max(radius * radius - off * off, 0)), 0.4 * radius);
      context.beginPath();
      context.arc((point.at[h] + 0.5) * scale, height - (point.at[v] + 0.5) * scale, across * scale, 0, 2 * Math.PI);
      context.strokeStyle = colour(point.score);
      context.globalAlpha = picked ? 1 : 0.75;
      context.lineWidth = (picked ? 1 + 1.6 * point.score : 1) * ratio;
      context.setLineDash(picked ? [] : [3 * ratio, 3 * ratio]);
      context.stroke();
    });
    context.setLineDash([]); context.globalAlpha = 1;
    scaleBar(context, t, width, h);
    const place = `${AXES[axis]} = ${Math.round(middle)}`;
    panel.caption.textContent =
      `${name[0]}–${name[1]} at ${place} of ${t.size[axis]}, ${nm(plane.thickness, t).toFixed(0)} nm thick: ${near} picks near`;
    canvas.setAttribute("aria-label", `Slice of ${t.name} in ${name[0]} and ${name[1]}, ${place}, with ${near} picks`);
    canvas.dataset.near = near;
  };
  const turnTo = (name, number) => {
    const panel = panels[name], plane = tomograms[open].view.planes[name];
    panel.number = Math.min(Math.max(number, 0), plane.at.length - 1);
    panel.slider.value = panel.number;
    panel.slider.setAttribute("aria-valuetext", `${panel.number + 1} of ${plane.at.length}`);
    panel.image.src = plane.slices[panel.number];
  };
  const buildSlices = (t) => {
    find("slices").replaceChildren();
    for (const [name, plane] of Object.entries(t.view.planes)) {
      const canvas = make("canvas", { class: "slice", role: "img" });
      const slider = make("input", { type: "range", min: 0, max: plane.at.length - 1, step: 1, "aria-label": `Slice in ${name[0]} and ${name[1]}` });
      const caption = make("figcaption");
      const image = new Image();
      panels[name] = { canvas, slider, caption, image, number: 0 };
      image.addEventListener("load", () => paint(name));
      slider.addEventListener("input", () => turnTo(name, Number(slider.value)));
      find("slices").append(make("figure", {}, canvas, slider, caption));
      turnTo(name, Math.floor(plane.at.length / 2));
    }
  };

  /* ---- gallery ---- */
  const sheets = new Map();
  const gallery = (t) => {
    const thumbs = t.view.thumbs, box = find("gallery");
    box.replaceChildren();
    if (!thumbs) return;
    if (!sheets.has(t)) {
      const sheet = new Image();
      sheet.addEventListener("load", () => { if (tomograms[open] === t) gallery(t); });
      sheet.src = thumbs.picture;
      sheets.set(t, sheet);
    }
    const sheet = sheets.get(t), picks = picksOf(t), points = unpack(t);
    const lowest = picks && picks <= points.length ? points[picks - 1].score : cutOf(t);
    const held = thumbs.of.map((rank, slot) => ({ rank, slot })).filter((one) => one.rank !== null);
    const strip = (title, wanted, allowed) => {
      const chosen = held.filter(({ rank }) => allowed(rank))
        .sort((a, b) => Math.abs(a.rank - wanted) - Math.abs(b.rank - wanted)).slice(0, 8).sort((a, b) => a.rank - b.rank);
      const row = make("div", { class: "strip" });
      for (const { rank, slot } of chosen) {
        const side = thumbs.side, canvas = make("canvas", { width: 2 * side, height: 2 * side, role: "img" });
        const score = rank < points.length ? points[rank].score.toFixed(2) : "";
        canvas.setAttribute("aria-label", `Candidate ${rank + 1}, score ${score}`);
        if (sheet.complete) {
          canvas.getContext("2d").drawImage(sheet, (slot % thumbs.row) * side, Math.floor(slot / thumbs.row) * side, side, side, 0, 0, 2 * side, 2 * side);
        }
        row.append(make("div", {}, canvas, score));
      }
      const caption = make("figcaption", {}, title);
      box.append(make("figure", {}, caption, chosen.length ? row : make("p", { class: "note" }, "none")));
    };
    strip("The best", 0, (rank) => rank < picks);
    strip("The median", (picks - 1) / 2, (rank) => rank < picks);
    // the gallery holds a sample: what is far from the cut is not borderline
    const near = (rank) => rank < points.length && Math.abs(points[rank].score - lowest) <= 0.1;
    strip("Borderline: the last picks", picks - 1, (rank) => rank < picks && near(rank));
    strip("Below the cut: the next candidates", picks, (rank) => rank >= picks && near(rank));
  };

  /* ---- charts of a tomogram ---- */
  const scoreChart = (t) => {
    const bars = t.histogram.map((value, i, all) => ({ value, from: i / all.length, to: (i + 1) / all.length, on: (i + 0.5) / all.length >= cutOf(t) }));
    const found = data.calibrated ? `, expected precision ${percent(particlesOf(t), picksOf(t))}, recall ${percent(particlesOf(t), t.everything)}` : "";
    chart(find("scores"), {
      title: `Scores of ${t.candidates} candidates; cut at ${cutOf(t).toFixed(3)}: ${picksOf(t)} picks${found}`,
      bars, x: [0, 1], y: [0, nice(Math.max(...t.histogram, 1))], xLabel: "score", yLabel: "candidates", mark: cutOf(t), root: true,
    });
  };
  const depthChart = (t) => {
    const bins = 24, counts = new Array(bins).fill(0), picks = picksOf(t), points = unpack(t).slice(0, picks);
    for (const point of points) counts[Math.min(bins - 1, Math.max(0, Math.floor(((point.at[2] + 0.5) / t.size[2]) * bins)))]++;
    const thickness = nm(t.size[2], t);
    chart(find("depth"), {
      title: `Where along z the picks lie${points.length < picks ? ` (the best ${points.length})` : ""}`,
      bars: counts.map((value, i) => ({ value, from: (i / bins) * thickness, to: ((i + 1) / bins) * thickness, on: true })),
      x: [0, thickness], y: [0, nice(Math.max(...counts, 1))], xLabel: "z (nm)", yLabel: "picks",
    });
  };
  const averageOf = (t) => {
    const average = t.view.average, figure = find("mean");
    figure.hidden = find("profile").hidden = !average;
    if (!average) return;
    figure.querySelector("figcaption").textContent =
      `Average of the ${average.count} best candidates, not aligned; ${(average.box * data.diameter / 10).toFixed(0)} nm wide`;
    figure.querySelector(".triple").replaceChildren(...average.pictures.map((source, i) => {
      const name = ["x–y", "x–z", "y–z"][i];
      return make("div", {}, make("img", { src: source, alt: `Average in ${name}` }), make("span", {}, name));
    }));
    const values = average.profile.map(([, value]) => value), low = Math.min(...values, 0), high = Math.max(...values, 0);
    const far = average.profile[average.profile.length - 1][0];
    chart(find("profile"), {
      title: `Its radial profile; dashed: the particle's radius. Contrast ${t.view.contrast === null ? "-" : t.view.contrast.toFixed(2)} sd`,
      lines: [average.profile.map(([radius, value]) => [radius / 10, value])], x: [0, far / 10], y: rounded(low, high > low ? high : low + 1),
      xLabel: "distance from the centre (nm)", yLabel: "grey (sd)", mark: data.diameter / 20,
    });
  };

  /* ---- what the threshold changes ---- */
  const refresh = () => {
    const sum = (of) => tomograms.reduce((total, t) => total + of(t), 0);
    const picks = sum(picksOf), particles = sum(particlesOf), everything = sum((t) => t.everything || 0);
    find("chosen").textContent = step === null ? "as picked" : (step / STEPS).toFixed(2);
    find("picks").textContent = picks;
    find("particles").textContent = Math.round(particles);
    find("precision").textContent = percent(particles, picks);
    find("recall").textContent = percent(particles, everything);
    find("reset").disabled = step === null;
    const [start, rest] = data.repick;
    find("command").textContent = step === null
      ? "# another threshold: move the slider, then run what stands here"
      : `${start} --threshold ${(step / STEPS).toFixed(2)}${rest ? " " + rest : ""}`;
    find("again").querySelector("button").hidden = step === null;
    tomograms.forEach((t, i) => {
      const cells = document.querySelector(`tr[data-row="${i}"]`).cells;
      cells[1].textContent = picksOf(t);
      cells[3].textContent = data.calibrated ? percent(particlesOf(t), picksOf(t)) : "-";
      cells[4].textContent = data.calibrated ? percent(particlesOf(t), t.everything) : "-";
      cells[5].textContent = cutOf(t).toFixed(3);
    });
    const t = tomograms[open];
    find("about").textContent =
      `${picksOf(t)} picks of ${t.candidates} candidates · ${t.size.join(" × ")} voxels of ${label(t.voxel)} Å` +
      (t.flags.length ? ` · unlike the others: ${t.flags.join(", ")}` : "");
    scoreChart(t);
    if (t.view) {
      Object.keys(panels).forEach(paint);
      gallery(t);
      depthChart(t);
    }
  };
  const show = (number, jump) => {
    open = (number + tomograms.length) % tomograms.length;
    const t = tomograms[open];
    find("viewed").textContent = t.name;
    find("which").value = open;
    document.querySelectorAll("#table tr[data-row]").forEach((row) => row.classList.toggle("shown", Number(row.dataset.row) === open));
    for (const id of ["slices", "legend", "gallery", "mean", "profile", "depth"]) find(id).hidden = !t.view;
    document.querySelector("#viewer h3").hidden = !t.view;
    find("blank").hidden = Boolean(t.view);
    for (const name of Object.keys(panels)) delete panels[name];
    if (t.view) {
      buildSlices(t);
      averageOf(t);
    }
    refresh();
    if (jump) { find("viewer").scrollIntoView(); find("viewed").focus({ preventScroll: true }); }
  };

  /* ---- the training curve ---- */
  const drawCurve = () => {
    const numbers = data.curve.filter((point) => Number.isFinite(point.loss) && Number.isFinite(point.step));
    if (numbers.length < 2) return;
    find("training").hidden = false;
    const losses = numbers.map((point) => point.loss), low = Math.min(...losses), high = Math.max(...losses);
    chart(find("curve"), {
      title: `Loss of the training: ${label(losses[0])} at first, ${label(losses[losses.length - 1])} at the end`,
      lines: [numbers.map((point) => [point.step, point.loss])], x: [0, numbers[numbers.length - 1].step], y: rounded(low, high > low ? high : low + 1),
      xLabel: "step", yLabel: "loss",
    });
  };

  /* ---- start ---- */
  const threshold = find("threshold");
  threshold.value = Math.round(data.threshold * STEPS);
  threshold.addEventListener("input", () => { step = Number(threshold.value); refresh(); });
  find("reset").addEventListener("click", () => { step = null; threshold.value = Math.round(data.threshold * STEPS); refresh(); });
  find("rest").addEventListener("change", () => Object.keys(panels).forEach(paint));
  find("low").textContent = "0";
  find("high").textContent = data.calibrated ? "1 (probability)" : "1";
  tomograms.forEach((t, i) => find("which").append(make("option", { value: i }, t.name)));
  find("which").addEventListener("change", () => show(Number(find("which").value)));
  find("previous").addEventListener("click", () => show(open - 1));
  find("next").addEventListener("click", () => show(open + 1));
  document.querySelectorAll("[data-open]").forEach((button) => button.addEventListener("click", () => show(Number(button.dataset.open), true)));
  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => {
    const text = button.parentElement.querySelector("pre");
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
    const select = () => { const range = document.createRange(); range.selectNodeContents(text); getSelection().removeAllRanges(); getSelection().addRange(range); };
    // a page that was opened from a disk may not be allowed to copy: then the text is selected for the user to do it
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(done, select);
    else select();
  }));
  let resized;
  window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => Object.keys(panels).forEach(paint), 100); });
  find("viewer").hidden = false;
  drawCurve();
  const first = tomograms.findIndex((t) => t.view);
  show(Math.max(first, 0));
})();
