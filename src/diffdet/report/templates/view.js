// The interactive detector: panels over the epochs. Needs plotly, which stands in the same file.
(function () {
  const view = JSON.parse(document.getElementById("view-data").textContent);
  const holder = document.getElementById("view");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function boxEdges([a, b]) {
    const corners = [[0,0,0],[1,0,0],[1,1,0],[0,1,0],[0,0,0],[0,0,1],[1,0,1],[1,0,0],[1,0,1],[1,1,1],[1,1,0],[1,1,1],[0,1,1],[0,1,0],[0,1,1],[0,0,1]];
    const at = (axis) => corners.map((corner) => (corner[axis] ? b[axis] : a[axis]));
    return { x: at(0), y: at(1), z: at(2) };
  }

  function traces(frame) {
    const paint = [css("--above"), css("--below")];
    return frame.traces.map((trace, k) => {
      const colour = paint[Math.floor(k / 2)];
      const common = { ...trace, hoverinfo: "x+y+z", showlegend: false };
      return trace.type === "mesh3d"
        ? { ...common, color: colour, opacity: 0.35, flatshading: true, lighting: { ambient: 1, diffuse: 0, specular: 0 } }
        : { ...common, line: { color: colour, width: 3 } };
    });
  }

  const block = () => ({
    type: "scatter3d", mode: "lines", ...boxEdges(view.block), hoverinfo: "skip", showlegend: false,
    line: { color: css("--soft"), width: 2 },
  });

  function layout() {
    const axis = (title, range) => ({
      title: { text: title }, range, color: css("--soft"), gridcolor: css("--rule"), zerolinecolor: css("--rule"),
      showbackground: false, showspikes: false,
    });
    const size = view.ranges.map(([low, high]) => high - low);
    const longest = Math.max(...size);
    const far = holder.clientWidth < 500 ? 1.5 : 1.3;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 0, r: 0, t: 0, b: 0 },
      font: { family: "system-ui, sans-serif", size: 12, color: css("--soft") },
      uirevision: "kept",
      scene: {
        xaxis: axis("x [m]", view.ranges[0]), yaxis: axis("y [m]", view.ranges[1]), zaxis: axis("z [m]", view.ranges[2]),
        aspectmode: "manual", aspectratio: { x: size[0] / longest, y: size[1] / longest, z: size[2] / longest },
        camera: { eye: { x: 1.1 * far, y: -1.5 * far, z: 0.5 * far }, center: { x: 0, y: 0, z: -0.05 } },
      },
    };
  }

  const slider = document.getElementById("view-epoch");
  const output = document.getElementById("view-epoch-value");
  const play = document.getElementById("view-play");
  slider.max = view.frames.length - 1;
  let timer = null;

  function draw() {
    const frame = view.frames[Number(slider.value)];
    output.textContent = frame.epoch === 0 ? "start" : "epoch " + frame.epoch;
    Plotly.react(holder, [...traces(frame), block()], layout(), { displaylogo: false, displayModeBar: false, responsive: true });
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) >= view.frames.length - 1) slider.value = 0;
    play.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      draw();
      if (Number(slider.value) >= view.frames.length - 1) stop();
    }, Math.max(60, 3000 / view.frames.length));
  });
  slider.addEventListener("input", () => { stop(); draw(); });
  dark.addEventListener("change", draw);
  slider.value = view.frames.length - 1;
  draw();
})();
