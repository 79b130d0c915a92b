(() => {
  const { data, label } = report;
  const LABEL = { colour: "#ffaa00", width: 2 }, GIVEN = { colour: "#ffaa00", width: 1.4, shapes: ["plus"] };
  const STRAY = { colour: "#ffaa00", width: 2, shapes: ["ring", "cross"] };
  const DOUBTFUL = { colour: "#7cc8ff", width: 1.7, dashed: true }, REJECTED = { colour: "#ff7a6b", width: 1.8, shapes: ["cross"] };
  const viewer = report.viewer({
    marks: (t) => [
      ...t.doubtful.map((at) => ({ at, kind: "doubtful", ...DOUBTFUL })),
      ...t.labels.map((at) => ({ at, kind: "label", ...LABEL })),
      ...t.given.map((at) => ({ at, ...GIVEN })),
      ...t.stray.map((at) => ({ at, kind: "stray", ...STRAY })),
      ...t.rejected.map((at) => ({ at, kind: "rejected", ...REJECTED })),
    ],
    kinds: {
      label: "labels",
      ...(data.tomograms.some((t) => t.stray.length) ? { stray: "labels that may be wrong" } : {}),
      ...(data.tomograms.some((t) => t.doubtful.length) ? { doubtful: "places that may be particles" } : {}),
      ...(data.tomograms.some((t) => t.rejected.length) ? { rejected: "rejected places" } : {}),
    },
    about: (t) => `${t.labels.length} labels · ${t.size.join(" × ")} voxels of ${label(t.voxel)} Å`,
    changed: () => {},
    opened: (t) => report.legend([
      [LABEL, `labels (${t.labels.length})`],
      ...(t.given.length ? [[GIVEN, "where they were given; moved to the circle"]] : []),
      ...(t.stray.length ? [[STRAY, `labels, probably no particles: not learned from (${t.stray.length})`]] : []),
      ...(t.doubtful.length ? [[DOUBTFUL, `unlabelled, may be particles: count less as background (${t.doubtful.length})`]] : []),
      ...(t.rejected.length ? [[REJECTED, `rejected places (${t.rejected.length})`]] : []),
      ...(t.excluded ? [["hatched", "left out"]] : []),
    ]),
    parts: [],
  });
  report.curves(data.curves);
  viewer.start();
})();
