// Draws a digit, gives it to the explained network, and shows what came out.  build.py tells what stands beside this file.

const CLASSES = 10;
const SIDE = 8; // the network's pixels
const FINE = 4; // each counts the inked points of a square of this side, as in the data it learned from
const PEN = 5.4; // the width of a line, of SIDE * FINE = 32: about as much ink as the data has
const TOLERANCE = 1e-4; // of f(x) - base: float32, 64 pixels, 20 references

const byId = (id) => document.getElementById(id);
const pad = byId("pad");
const map = byId("map");

let strokes = []; // lists of points [x, y], from 0 to 1
let given = null; // pixels of a digit that is shown instead of strokes
let chosen = null; // the class to explain; null: the likeliest
let shown = null; // the last answer
let pen = { x: 0.5, y: 0.5, down: false }; // of the keys

// What is drawn, as the network takes it

/** Strokes as high as the picture, in the middle, as digits in the data are; a pixel is the share of its points under ink. */
function pixels() {
  if (given) return given;
  const found = new Float32Array(SIDE * SIDE);
  const points = strokes.flat();
  if (!points.length) return found;
  const [left, right] = [0, 1].map((k) => Math[k ? "max" : "min"](...points.map((p) => p[0])));
  const [top, bottom] = [0, 1].map((k) => Math[k ? "max" : "min"](...points.map((p) => p[1])));
  const side = SIDE * FINE;
  const room = side - PEN;
  // a dot has no height, and a dash shall not fill the picture
  const scale = Math.min(room / Math.max(bottom - top, 0.2), (room * 0.75) / Math.max(right - left, 1e-9));
  const place = ([x, y]) => [side / 2 + scale * (x - (left + right) / 2), side / 2 + scale * (y - (top + bottom) / 2)];
  const placed = strokes.map((stroke) => stroke.map(place));
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      if (!placed.some((stroke) => distance(stroke, column + 0.5, row + 0.5) <= PEN / 2)) continue;
      found[Math.floor(row / FINE) * SIDE + Math.floor(column / FINE)] += 1 / FINE ** 2;
    }
  }
  return found;
}

/** From a point to the nearest of a line's pieces. */
function distance(line, x, y) {
  let least = Infinity;
  for (let i = 0; i < line.length; i++) {
    const [[ax, ay], [bx, by]] = [line[Math.max(i - 1, 0)], line[i]];
    const [dx, dy] = [bx - ax, by - ay];
    const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
    least = Math.min(least, Math.hypot(x - ax - along * dx, y - ay - along * dy));
  }
  return least;
}

// The network

let ort = null; // ONNX Runtime
let session = null;
let busy = false;
let late = false;

/** Explains what is drawn now; while one run is on its way, only the newest drawing waits. */
async function explain() {
  if (!session) return;
  if (busy) {
    late = true;
    return;
  }
  busy = true;
  map.setAttribute("aria-busy", "true");
  try {
    do {
      late = false;
      const image = pixels();
      const start = performance.now();
      const results = await session.run({ image: new ort.Tensor("float32", image, [1, 1, SIDE, SIDE]) });
      const took = performance.now() - start;
      const [logits, values, base, error] = ["logits", "image_attributions", "base_values", "completeness_error"].map(
        (name) => results[name].data,
      );
      shown = { image, logits, values, base, error, took };
    } while (late);
    draw();
  } catch (error) {
    byId("state").textContent = `The network failed: ${error.message ?? error}`;
  } finally {
    busy = false;
    map.setAttribute("aria-busy", "false");
  }
}

// What is shown

const signed = (x, digits) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const mix = (from, to, share) => from.map((c, i) => c + (to[i] - c) * share);

function drawPad() {
  const context = pad.getContext("2d");
  const { width, height } = pad;
  context.clearRect(0, 0, width, height);
  if (given) paint(context, (i) => mix([255, 255, 255], [28, 29, 31], given[i]));
  Object.assign(context, { lineWidth: 16, lineCap: "round", lineJoin: "round", strokeStyle: "#1c1d1f" });
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0][0] * width, stroke[0][1] * height);
    for (const [x, y] of stroke) context.lineTo(x * width, y * height);
    context.stroke();
  }
  if (document.activeElement === pad && pad.matches(":focus-visible")) {
    Object.assign(context, { lineWidth: 2, strokeStyle: pen.down ? "#d3121f" : "#1746c8" });
    context.beginPath();
    context.arc(pen.x * width, pen.y * height, 10, 0, 2 * Math.PI);
    context.stroke();
  }
}

function paint(context, colour) {
  const cell = context.canvas.width / SIDE;
  for (let i = 0; i < SIDE * SIDE; i++) {
    context.fillStyle = `rgb(${colour(i).map(Math.round).join(" ")})`;
    context.fillRect((i % SIDE) * cell, Math.floor(i / SIDE) * cell, cell, cell);
  }
}

/** What the network sees, over colours that stay those of the scale: in each cell a dot of the ink's area. */
function dots(context, image) {
  const cell = context.canvas.width / SIDE;
  context.fillStyle = "#1c1d1f";
  for (let i = 0; i < SIDE * SIDE; i++) {
    context.beginPath();
    context.arc(((i % SIDE) + 0.5) * cell, (Math.floor(i / SIDE) + 0.5) * cell, 0.22 * cell * Math.sqrt(image[i]), 0, 2 * Math.PI);
    context.fill();
  }
}

function draw() {
  const { image, logits, values, base, error, took } = shown;
  const best = logits.indexOf(Math.max(...logits));
  const target = chosen ?? best;
  const own = values.subarray(target * SIDE * SIDE, (target + 1) * SIDE * SIDE);
  const scale = values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  const context = map.getContext("2d");
  const ends = [[23, 70, 200], [211, 18, 31]];
  paint(context, (i) => mix([255, 255, 255], ends[Number(own[i] > 0)], scale ? Math.abs(own[i]) / scale : 0));
  dots(context, image);
  byId("low").textContent = signed(-scale, 2);
  byId("high").textContent = signed(scale, 2);

  const total = own.reduce((sum, v) => sum + v, 0);
  const highest = Math.max(...logits);
  const weights = logits.map((z) => Math.exp(z - highest));
  const mass = weights.reduce((a, b) => a + b);
  for (let k = 0; k < CLASSES; k++) {
    const label = byId("ranks").querySelectorAll("label")[k];
    label.querySelector("input").checked = k === target;
    label.querySelector("meter").value = weights[k] / mass;
    label.querySelector("output").textContent = `${((100 * weights[k]) / mass).toFixed(1)} %`;
  }
  byId("fx").textContent = signed(logits[target], 4);
  byId("base").textContent = signed(base[target], 4);
  byId("total").textContent = signed(total, 4);
  byId("error").textContent = error[target].toExponential(1).replaceAll("-", "−");
  const exact = Math.abs(error[target]) <= TOLERANCE * Math.max(Math.abs(logits[target] - base[target]), 1);
  byId("error").classList.toggle("exact", exact);
  const drawn = image.some((v) => v > 0);
  const side = (sign) => own.reduce((sum, v) => sum + Math.max(sign * v, 0), 0).toFixed(2);
  map.setAttribute("aria-label", `For ${target}: ${side(1)}, against it: ${side(-1)}`);
  const answer = drawn ? `The network reads ${best}` : "Nothing is drawn yet";
  const asked = target === best ? "" : `; ${target} is explained`;
  byId("state").textContent = `${answer}${asked}. Read and explained in ${took.toFixed(0)} ms.`;
  Object.assign(map.dataset, { seen: [...image], values: [...own] }); // for whoever wants to compare
}

// What people do

function changed() {
  drawPad();
  explain();
}

function clear() {
  strokes = [];
  given = null;
  pen.down = false;
  changed();
}

function undo() {
  if (given) return clear();
  strokes.pop();
  pen.down = false;
  return changed();
}

/** A stroke begins; what was given is put away. */
function begin(x, y) {
  given = null;
  strokes.push([[x, y]]);
  changed();
}

const at = (event) => {
  const box = pad.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top].map((d, i) => Math.min(1, Math.max(0, d / [box.width, box.height][i])));
};
pad.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  pad.setPointerCapture(event.pointerId);
  pen.down = false;
  begin(...at(event));
});
pad.addEventListener("pointermove", (event) => {
  if (!pad.hasPointerCapture(event.pointerId)) return;
  strokes.at(-1).push(at(event));
  changed();
});

const STEP = 1 / 24;
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const KEYS = {
  " ": () => {
    pen.down = !pen.down;
    if (pen.down) begin(pen.x, pen.y);
    else drawPad();
  },
  Backspace: undo,
  Escape: clear,
};
pad.addEventListener("keydown", (event) => {
  const move = MOVES[event.key];
  if (!move && !KEYS[event.key]) return;
  event.preventDefault();
  if (!move) {
    KEYS[event.key]();
    return;
  }
  const within = (v) => Math.min(0.95, Math.max(0.05, v));
  pen = { ...pen, x: within(pen.x + move[0]), y: within(pen.y + move[1]) };
  if (pen.down) strokes.at(-1).push([pen.x, pen.y]);
  if (pen.down) changed();
  else drawPad();
});
pad.addEventListener("focus", drawPad);
pad.addEventListener("blur", drawPad);
byId("undo").addEventListener("click", undo);
byId("clear").addEventListener("click", clear);
byId("follow").addEventListener("click", () => {
  chosen = null;
  if (shown) draw();
});

for (let k = 0; k < CLASSES; k++) {
  const label = document.createElement("label");
  label.innerHTML = `<input type="radio" name="class" value="${k}"><span>${k}</span>
    <meter max="1" value="0" aria-hidden="true"></meter><output></output>`;
  label.firstChild.addEventListener("change", () => {
    chosen = k;
    if (shown) draw();
  });
  byId("ranks").append(label);
}

try {
  ort = await import("./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.numThreads = 1; // threads would need headers that a plain file server doesn't send
  const written = await (await fetch("samples.json")).json();
  for (const [label, image] of written.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-label", `a written ${label}`);
    button.addEventListener("click", () => {
      clear();
      given = Float32Array.from(image);
      changed();
    });
    byId("samples").append(button);
  }
  session = await ort.InferenceSession.create("digits.onnx", { logSeverityLevel: 3 });
  changed();
} catch (error) {
  byId("state").textContent = `The network couldn't be loaded: ${error.message ?? error}`;
}
