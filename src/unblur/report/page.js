"use strict";

// Tables: a click on a column's title sorts by it, numbers by their value, a second click the other way round.
for (const table of document.querySelectorAll("table")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => title.firstChild.addEventListener("click", () => sortBy(table, titles, title, column)));
}

function sortBy(table, titles, title, column) {
  const rows = [...table.tBodies[0].rows];
  const isNumber = rows.some((row) => row.cells[column].dataset.order !== undefined);
  const before = title.getAttribute("aria-sort");
  const downwards = before ? before === "ascending" : isNumber; // numbers: the highest first
  const value = (row) => {
    const cell = row.cells[column];
    return isNumber ? parseFloat(cell.dataset.order ?? "NaN") : cell.textContent;
  };
  rows.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (!isNumber) return (downwards ? -1 : 1) * a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what is missing stays below
    return downwards ? b - a : a - b;
  });
  table.tBodies[0].append(...rows);
  titles.forEach((other) => other.removeAttribute("aria-sort"));
  title.setAttribute("aria-sort", downwards ? "descending" : "ascending");
}

// Charts: what lies along x.
for (const charts of document.querySelectorAll(".charts")) {
  const buttons = [...charts.querySelectorAll(".along button")];
  const versions = [...charts.querySelectorAll(".plots")];
  buttons.forEach((button, chosen) => button.addEventListener("click", () => {
    buttons.forEach((other, i) => other.setAttribute("aria-pressed", String(i === chosen)));
    versions.forEach((version, i) => { version.hidden = i !== chosen; });
  }));
}

// Pictures: two versions under a slider, and the same spot of all of them, enlarged. Without this script, and in print,
// the versions stand side by side.
for (const sample of document.querySelectorAll(".sample")) show(sample);

function show(sample) {
  const shots = [...sample.querySelectorAll(".shots figure")].map((figure) => ({
    picture: figure.querySelector("img"),
    label: figure.querySelector("figcaption").firstChild.textContent.trim(),
    score: figure.querySelector("b").textContent,
  }));
  const [width, height] = [Number(sample.dataset.width), Number(sample.dataset.height)];
  const state = { x: width / 2, y: height / 2, times: 4, share: 50 };

  const left = chooser("Left", Number(sample.dataset.left));
  const right = chooser("Right", Number(sample.dataset.right));
  const [under, over] = [make("img", { alt: "" }), make("img", { alt: "" })];
  const [bar, spot] = [make("div", { className: "bar" }), make("div", { className: "spot" })];
  const stage = make("div", { className: "stage", tabIndex: 0 }, under, over, bar, spot);
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", "Picture. Arrow keys move the enlarged spot.");
  const slider = make("input", { type: "range", min: "0", max: "100", value: "50", step: "0.5" });
  slider.setAttribute("aria-label", "How much of the left picture is shown");
  const times = make("select", {}, ...[2, 3, 4, 6, 8].map((n) => make("option", { value: String(n), textContent: `${n}×` })));
  times.value = String(state.times);
  const crops = shots.map((shot) => ({ shot, canvas: make("canvas", {}) }));
  const figures = crops.map(({ shot, canvas }) =>
    make("figure", {}, canvas, make("figcaption", {}, `${shot.label} `, make("b", { textContent: shot.score }))));
  const viewer = make("div", { className: "viewer" },
    make("div", {}, make("div", { className: "pick" }, left.field, right.field), stage, slider),
    make("div", { className: "zoom" }, make("label", {}, "The same spot of all, enlarged ", times),
      make("div", { className: "crops" }, ...figures)));
  sample.insertBefore(viewer, sample.querySelector(".shots"));
  sample.classList.add("shown");

  for (const choice of [left, right]) choice.select.addEventListener("change", choose);
  slider.addEventListener("input", () => { state.share = Number(slider.value); divide(); });
  times.addEventListener("change", () => { state.times = Number(times.value); enlarge(); });
  stage.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 32 : 8;
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!move) return;
    event.preventDefault();
    look(state.x + move[0], state.y + move[1]);
  });
  // A mouse looks where it is; held down, mouse or finger move the divider. A tap looks at the spot.
  let held = null;
  stage.addEventListener("pointerdown", (event) => { held = { x: event.clientX, moved: false }; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (held && Math.abs(event.clientX - held.x) > 4) held.moved = true;
    if (held && held.moved) {
      const box = stage.getBoundingClientRect();
      state.share = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
      slider.value = String(state.share);
      divide();
    } else if (!held && event.pointerType === "mouse") lookAt(event);
  });
  stage.addEventListener("pointerup", (event) => { if (held && !held.moved) lookAt(event); held = null; });
  stage.addEventListener("pointercancel", () => { held = null; });
  new ResizeObserver(enlarge).observe(figures[0]);
  Promise.all(shots.map((shot) => shot.picture.decode())).then(enlarge);
  choose();
  divide();

  function chooser(name, chosen) {
    const select = make("select", {}, ...shots.map((shot, i) => make("option", { value: String(i), textContent: shot.label })));
    select.value = String(chosen);
    return { select, field: make("label", {}, `${name} `, select) };
  }

  function choose() {
    over.src = shots[Number(left.select.value)].picture.src;
    under.src = shots[Number(right.select.value)].picture.src;
  }

  function divide() {
    over.style.clipPath = `inset(0 ${100 - state.share}% 0 0)`;
    bar.style.left = `${state.share}%`;
  }

  function lookAt(event) {
    const box = stage.getBoundingClientRect();
    look(((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height);
  }

  function look(x, y) {
    [state.x, state.y] = [x, y];
    enlarge();
  }

  function enlarge() {
    const shown = crops[0].canvas.clientWidth;
    if (!shown) return;
    const [wide, high] = [Math.min(width, shown / state.times), Math.min(height, (shown * 0.75) / state.times)];
    state.x = Math.min(width - wide / 2, Math.max(wide / 2, state.x));
    state.y = Math.min(height - high / 2, Math.max(high / 2, state.y));
    const [x, y] = [Math.round(state.x - wide / 2), Math.round(state.y - high / 2)];
    for (const { shot, canvas } of crops) {
      canvas.width = Math.round(shown * devicePixelRatio);
      canvas.height = Math.round(shown * 0.75 * devicePixelRatio);
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(shot.picture, x, y, wide, high, 0, 0, canvas.width, canvas.height);
    }
    Object.assign(spot.style, {
      left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%`,
      width: `${(100 * wide) / width}%`, height: `${(100 * high) / height}%`,
    });
  }
}

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
