"use strict";

/* A grid of pictures over the plane of two latent axes, and a point that is moved over it. A point is in steps
   of the grid, (0, 0) its upper left; `grid.bytes` holds rows of pictures, (number, number, H, W, C). */

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/* The neighbours before and after a place, and the weight of the one after. */
function between(place, number) {
  const held = Math.min(Math.max(place, 0), number - 1);
  const before = Math.min(Math.floor(held), Math.max(number - 2, 0));
  return [before, Math.min(before + 1, number - 1), held - before];
}

/* The picture at a point, as RGBA: four neighbours, blended bilinearly. */
function blend(grid, x, y) {
  const [left, right, u] = between(x, grid.number);
  const [top, bottom, v] = between(y, grid.number);
  const pixels = grid.width * grid.height;
  const size = pixels * grid.channels;
  const start = (row, column) => (row * grid.number + column) * size;
  const corners = [
    [start(top, left), (1 - u) * (1 - v)],
    [start(top, right), u * (1 - v)],
    [start(bottom, left), (1 - u) * v],
    [start(bottom, right), u * v],
  ];
  const picture = new Uint8ClampedArray(4 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const place = pixel * grid.channels + (grid.channels === 3 ? channel : 0);
      picture[4 * pixel + channel] = corners.reduce(
        (sum, [begin, weight]) => sum + weight * grid.bytes[begin + place], 0);
    }
    picture[4 * pixel + 3] = 255;
  }
  return picture;
}

/* The coordinate at a place, between those of its neighbours. */
function coordinate(values, place) {
  const [before, after, weight] = between(place, values.length);
  return (1 - weight) * values[before] + weight * values[after];
}

/* Where a key moves a point; null for any other key. */
function moved(point, key, step, number) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (!(key in ways)) return null;
  return point.map((place, axis) => Math.min(Math.max(place + step * ways[key][axis], 0), number - 1));
}

const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
  "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];

function explore(element) {
  const grid = JSON.parse(element.querySelector('script[type="application/json"]').textContent);
  grid.bytes = bytesOf(grid.pixels);
  const plane = element.querySelector("canvas.plane");
  const decoded = element.querySelector("canvas.decoded");
  const output = element.querySelector("output");
  const sliders = [...element.querySelectorAll("input")];
  const steps = grid.number - 1;
  let point = [steps / 2, steps / 2];

  function drawPlane() {
    const context = plane.getContext("2d");
    const scale = (place) => 10 + (place / Math.max(steps, 1)) * (plane.width - 20);
    const dot = (x, y, radius) => {
      context.beginPath();
      context.arc(scale(x), scale(y), radius, 0, 2 * Math.PI);
    };
    context.clearRect(0, 0, plane.width, plane.height);
    context.globalAlpha = 0.5;
    for (const [x, y, label] of grid.points) {
      context.fillStyle = COLOURS[Math.max(label, 0) % COLOURS.length];
      dot(x, y, 3);
      context.fill();
    }
    context.globalAlpha = 1;
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#000000";
    context.lineWidth = 3;
    dot(point[0], point[1], 8);
    context.fill();
    context.stroke();
  }

  function show() {
    const picture = blend(grid, point[0], point[1]);
    const context = decoded.getContext("2d");
    const image = context.createImageData(grid.width, grid.height);
    image.data.set(picture);
    context.putImageData(image, 0, 0);
    const values = [coordinate(grid.across, point[0]), coordinate(grid.down, point[1])];
    output.textContent = values.map((value, axis) => `${grid.axes[axis]} = ${value.toFixed(2)}`).join(", ");
    sliders.forEach((slider, axis) => {
      slider.value = String(axis === 0 ? point[0] : steps - point[1]); // up is more
      slider.setAttribute("aria-valuetext", values[axis].toFixed(2));
    });
    drawPlane();
  }

  function move(to) {
    point = to.map((place) => Math.min(Math.max(place, 0), steps));
    show();
  }

  function follow(event) {
    const box = plane.getBoundingClientRect();
    const place = (at, start, length) => ((at - start) / length * plane.width - 10) / (plane.width - 20) * steps;
    move([place(event.clientX, box.left, box.width), place(event.clientY, box.top, box.height)]);
  }

  let dragged = false;
  plane.addEventListener("pointerdown", (event) => {
    dragged = true;
    plane.setPointerCapture(event.pointerId);
    follow(event);
  });
  plane.addEventListener("pointermove", (event) => { if (dragged) follow(event); });
  for (const end of ["pointerup", "pointercancel"]) {
    plane.addEventListener(end, () => { dragged = false; });
  }
  plane.addEventListener("keydown", (event) => {
    const to = moved(point, event.key, event.shiftKey ? 1 : 0.25, grid.number);
    if (to === null) return;
    event.preventDefault();
    move(to);
  });
  sliders.forEach((slider, axis) => slider.addEventListener("input", () => {
    const place = Number(slider.value);
    move(axis === 0 ? [place, point[1]] : [point[0], steps - place]);
  }));
  show();
}

for (const element of document.querySelectorAll(".explorer")) explore(element);
