(() => {
  const { data, find, make, percent, label, chart } = report;
  const tomograms = data.tomograms, thresholds = data.thresholds;
  const STYLES = {
    hit: { colour: "#56b4e9", width: 2 },
    false: { colour: "#e69f00", width: 2, shapes: ["ring", "cross"] },
    missed: { colour: "#f0e442", width: 2, dashed: true },
    ignored: { colour: "#c8c8c8", width: 1, dashed: true },
  };
  let step = null; // of the threshold; null: the picks as they are
  let radius = 0;
  const counted = (t) => {
    const of = t.radii[radius];
    return step === null ? of.own : { picks: of.counts[step], matched: of.matched[step] };
  };
  const f1 = ({ picks, matched }, truths) => (2 * matched) / (picks + truths || 1);

  const unpack = (t) => {
    if (t.points) return t.points;
    const { picks, truths } = t.view, levels = report.bytes(t.levels), found = t.radii.map((of) => report.bytes(of.found));
    const unpacked = (text) => { const packed = report.bytes(text); return report.places(packed, packed.length / 6, t.size); };
    t.points = { picks: unpacked(picks), truths: unpacked(truths), levels, found };
    return t.points;
  };
  const marks = (t) => {
    const { picks, truths, levels, found } = unpack(t), of = t.radii[radius], ignored = new Set(of.ignored);
    const chosen = (rank) => (step === null ? rank < t.accepted : levels[rank] >= step);
    // as report.evaluation packs it
    const missing = (code) => (step === null ? code < 128 : (code & 127) - 1 < step);
    const kinds = { h: "hit", f: "false", i: "ignored" };
    const drawn = picks.map((place, rank) => ({ place, rank })).filter(({ rank }) => chosen(rank))
      .map(({ place, rank }) => ({ at: place, kind: kinds[of.outcome[rank]] }));
    const missed = truths.map((place, i) => ({ at: place, kind: ignored.has(i) ? "ignored" : "missed", code: found[radius][i] }))
      .filter(({ code }) => missing(code));
    return [...missed, ...drawn].map((one) => ({ ...one, ...STYLES[one.kind] }));
  };

  /* ---- curves: where the picks as they are, the best F1, and the slider stand on them ---- */
  const curve = (id, title, of, truths, now) => {
    const figure = find(id);
    figure.hidden = !of.curve.length;
    if (figure.hidden) return;
    const dot = (text, style, { picks, matched }) => ({ at: [matched / truths, picks ? matched / picks : 1], text, style });
    chart(figure, {
      title, lines: [{ points: of.curve }], x: [0, 1], y: [0, 1], xLabel: "recall", yLabel: "precision",
      dots: [
        ...(of.best ? [dot(`best F1 ${f1(of.best, truths).toFixed(2)}`, "best", of.best)] : []),
        ...(step === null
          ? (data.cut ? [dot(`${data.cut}: F1 ${f1(of.own, truths).toFixed(2)}`, "own", of.own)] : [])
          : [dot(`threshold: F1 ${f1(now, truths).toFixed(2)}`, "own", now)]),
      ],
    });
  };
  const error = (voxels) => (voxels === null ? "-" : label(voxels));
  const changed = (t) => {
    const sum = (of) => tomograms.reduce((total, one) => total + of(one), 0);
    const all = { picks: sum((one) => counted(one).picks), matched: sum((one) => counted(one).matched) };
    const truths = sum((one) => one.radii[radius].truths), pooled = data.pooled[radius];
    find("chosen").textContent = step === null ? "as picked" : thresholds[step];
    find("picks").textContent = all.picks;
    find("precision").textContent = percent(all.matched, all.picks);
    find("recall").textContent = percent(all.matched, truths);
    find("f1").textContent = f1(all, truths).toFixed(3);
    find("reset").disabled = step === null;
    curve("pooled", `All tomograms: average precision ${label(pooled.average_precision || 0)}`, pooled, truths, all);
    const own = t.radii[radius];
    curve("single", `${t.name}: average precision ${label(own.average_precision || 0)}`, own, own.truths, counted(t));
    tomograms.forEach((one, i) => {
      const cells = document.querySelector(`tr[data-row="${i}"]`).cells, { picks, matched } = counted(one), of = one.radii[radius];
      const values = [
        picks, matched, picks - matched, of.truths - matched, percent(matched, picks), percent(matched, of.truths),
        f1({ picks, matched }, of.truths).toFixed(3), of.average_precision === null ? "-" : of.average_precision.toFixed(3),
        step === null ? error(of.error) : "-",
      ];
      values.forEach((value, column) => { cells[column + 1].textContent = value; });
    });
  };

  /* ---- start ---- */
  const ignored = tomograms.some((t) => t.radii.some((of) => of.outcome.includes("i") || of.ignored.length));
  const viewer = report.viewer({
    marks, changed, parts: [],
    kinds: { hit: "hits", false: "false picks", missed: "missed", ...(ignored ? { ignored: "ignored in the margin" } : {}) },
    about: (t) => {
      const { picks, matched } = counted(t);
      return `${picks} picks, ${matched} of them hits; ${t.radii[radius].truths - matched} of ${t.radii[radius].truths} reference points missed` +
        (t.size ? ` · ${t.size.join(" × ")} voxels` : "") + (t.voxel ? ` of ${label(t.voxel)} Å` : "");
    },
    opened: (t) => report.legend([
      [STYLES.hit, "hit"], [STYLES.false, "false pick"], [STYLES.missed, "missed reference point"],
      ...(ignored ? [[STYLES.ignored, "ignored in the margin"]] : []),
      ...(t.excluded ? [["hatched", "left out"]] : []),
    ]),
  });
  const threshold = find("threshold"), off = thresholds.map((value) => Math.abs(value - data.threshold));
  const start = off.indexOf(Math.min(...off));
  threshold.value = start;
  threshold.addEventListener("input", () => { step = Number(threshold.value); viewer.refresh(); });
  find("reset").addEventListener("click", () => { step = null; threshold.value = start; viewer.refresh(); });
  data.radii.forEach((text, i) => find("radius").append(make("option", { value: i }, text)));
  find("radius").addEventListener("change", () => { radius = Number(find("radius").value); viewer.refresh(); });
  viewer.start();
})();
