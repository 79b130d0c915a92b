(() => {
  const { data, find, make, percent, label, nice, rounded, nm, chart } = report;
  const tomograms = data.tomograms, STEPS = 100;
  let step = null; // of the threshold; null: every tomogram cut as it was picked
  // blue, white, amber: told apart by the colour-blind and on grey
  const ENDS = [[40, 130, 255], [255, 255, 255], [255, 170, 0]];
  const LABEL = { colour: "#7dff9a", width: 1.6, shapes: ["plus"] }, REJECTED = { colour: "#ff7a6b", width: 1.6, shapes: ["cross"] };
  const colour = (score) => {
    const [from, to] = score < 0.5 ? [ENDS[0], ENDS[1]] : [ENDS[1], ENDS[2]], share = score < 0.5 ? 2 * score : 2 * score - 1;
    return `rgb(${from.map((part, i) => Math.round(part + share * (to[i] - part))).join(" ")})`;
  };
  const picksOf = (t) => (step === null ? t.picks : t.counts[step]);
  const particlesOf = (t) => (step === null ? t.particles : t.sums[step]);
  const cutOf = (t) => (step === null ? t.lowest : step / STEPS);

  const unpack = (t) => {
    if (t.points) return t.points;
    const packed = report.bytes(t.view.points), count = packed.length / 7;
    t.points = report.places(packed, count, t.size).map((at, i) => ({ at, score: packed[6 * count + i] / 255 }));
    return t.points;
  };
  const marks = (t) => {
    const picks = picksOf(t), points = unpack(t), shown = find("rest").checked ? points : points.slice(0, picks);
    return [
      ...shown.map(({ at, score }, i) => {
        const picked = i < picks;
        return { at, colour: colour(score), width: picked ? 1 + 1.6 * score : 1, alpha: picked ? 1 : 0.75, dashed: !picked, kind: picked && "pick" };
      }),
      ...t.labels.map((at) => ({ at, ...LABEL })),
      ...t.rejected.map((at) => ({ at, ...REJECTED })),
    ];
  };

  /* ---- gallery ---- */
  const sheets = new Map();
  const gallery = (t) => {
    const thumbs = t.view.thumbs, box = find("gallery");
    box.replaceChildren();
    if (!thumbs) return;
    if (!sheets.has(t)) {
      const sheet = new Image();
      sheet.addEventListener("load", () => { if (find("viewed").textContent === t.name) gallery(t); });
      sheet.src = thumbs.picture;
      sheets.set(t, sheet);
    }
    const sheet = sheets.get(t), picks = picksOf(t), points = unpack(t);
    const held = thumbs.of.map((rank, slot) => ({ rank, slot })).filter((one) => one.rank !== null);
    // the eight of the ranks from `first` to before `end` that have pictures and lie nearest to `wanted`
    const strip = (title, wanted, first, end) => {
      const chosen = held.filter(({ rank }) => rank >= first && rank < end)
        .sort((a, b) => Math.abs(a.rank - wanted) - Math.abs(b.rank - wanted)).slice(0, 8).sort((a, b) => a.rank - b.rank);
      const ranks = chosen.map(({ rank }) => rank), span = ranks.length && ranks.at(-1) - ranks[0] + 1;
      // the pictures are a sample: after the slider was moved the nearest one may lie apart
      const apart = span > ranks.length || !ranks.includes(Math.floor(wanted));
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
      const caption = make("figcaption", {}, title + (chosen.length && apart ? ", the nearest that have pictures" : ""));
      const none = make("p", { class: "note" }, first < end ? "no pictures of them" : "none");
      box.append(make("figure", {}, caption, chosen.length ? row : none));
    };
    strip("The best", 0, 0, picks);
    strip("The median", (picks - 1) / 2, 0, picks);
    strip("Borderline: the last picks", picks - 1, 0, picks);
    strip("Below the cut: the next candidates", picks, picks, t.candidates);
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
  const opened = (t) => {
    const average = t.view && t.view.average, figure = find("mean");
    figure.hidden = find("profile").hidden = !average;
    find("pictured").hidden = !t.view || !t.view.thumbs;
    if (!t.view) return;
    report.legend([
      ...(t.labels.length ? [[LABEL, `labels given (${t.labels.length})`]] : []),
      ...(t.rejected.length ? [[REJECTED, `rejected places (${t.rejected.length})`]] : []),
      ...(t.excluded ? [["hatched", "left out"]] : []),
    ]);
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
      lines: [{ points: average.profile.map(([radius, value]) => [radius / 10, value]) }], x: [0, far / 10], y: rounded(low, high > low ? high : low + 1),
      xLabel: "distance from the centre (nm)", yLabel: "grey (sd)", mark: data.diameter / 20,
    });
  };

  /* ---- what the threshold changes ---- */
  const about = (t) =>
    `${picksOf(t)} picks of ${t.candidates} candidates · ${t.size.join(" × ")} voxels of ${label(t.voxel)} Å` +
    (t.flags.length ? ` · unlike the others: ${t.flags.join(", ")}` : "");
  const changed = (t) => {
    const sum = (of) => tomograms.reduce((total, one) => total + of(one), 0);
    const picks = sum(picksOf), particles = sum(particlesOf), everything = sum((one) => one.everything || 0);
    find("chosen").textContent = step === null ? "as picked" : (step / STEPS).toFixed(2);
    find("picks").textContent = picks;
    find("particles").textContent = Math.round(particles);
    find("precision").textContent = percent(particles, picks);
    find("recall").textContent = percent(particles, everything);
    find("reset").disabled = step === null;
    const [start, rest] = data.repick;
    const command = step === null
      ? "# another threshold: move the slider, then run what stands here"
      : `${start} --threshold ${(step / STEPS).toFixed(2)}${rest ? " " + rest : ""}`;
    // no line breaks within an option
    find("command").replaceChildren(...command.split(/(\s+)/).map((word) => (word.startsWith("-") ? make("span", {}, word) : word)));
    find("again").querySelector("button").hidden = step === null;
    tomograms.forEach((one, i) => {
      const cells = document.querySelector(`tr[data-row="${i}"]`).cells;
      cells[1].textContent = picksOf(one);
      cells[3].textContent = data.calibrated ? percent(particlesOf(one), picksOf(one)) : "-";
      cells[4].textContent = data.calibrated ? percent(particlesOf(one), one.everything) : "-";
      cells[5].textContent = cutOf(one).toFixed(3);
    });
    scoreChart(t);
    if (t.view) {
      gallery(t);
      depthChart(t);
    }
  };

  /* ---- start ---- */
  const viewer = report.viewer({
    marks, about, changed, opened, kinds: { pick: "picks" }, parts: ["gallery", "pictured", "mean", "profile", "depth"],
  });
  const threshold = find("threshold");
  threshold.value = Math.round(data.threshold * STEPS);
  threshold.addEventListener("input", () => { step = Number(threshold.value); viewer.refresh(); });
  find("reset").addEventListener("click", () => { step = null; threshold.value = Math.round(data.threshold * STEPS); viewer.refresh(); });
  find("rest").addEventListener("change", viewer.refresh);
  find("low").textContent = "0";
  find("high").textContent = data.calibrated ? "1 (probability)" : "1";
  report.curves(data.curves);
  report.copying();
  viewer.start();
})();
