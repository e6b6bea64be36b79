// Which class each pixel of a picture is of.

import { color, list } from "../list.js";

const OPACITY = 0.55;

/** The class of each pixel, of the size that the model sees. */
export function answer(outputs, { input: { height, width }, options: { classes } }) {
  const [{ values, shape }] = Object.values(outputs);
  const [, rows, columns, scores = 1] = shape;
  const numbers = new Uint8Array(height * width);
  const across = places(columns, width);
  places(rows, height).forEach(([above, below, down], y) => {
    across.forEach(([left, right, along], x) => {
      if (scores !== classes) { // the file gives class numbers already
        numbers[y * width + x] = values[Math.floor(((y + 0.5) * rows) / height) * columns + Math.floor(((x + 0.5) * columns) / width)];
        return;
      }
      let most = -Infinity;
      for (let label = 0; label < classes; label++) {
        const at = (row, column) => values[(row * columns + column) * classes + label];
        const [top, bottom] = [at(above, left) + down * (at(below, left) - at(above, left)), at(above, right) + down * (at(below, right) - at(above, right))];
        const score = top + along * (bottom - top);
        if (score > most) [most, numbers[y * width + x]] = [score, label];
      }
    });
  });
  return { numbers, width, height };
}

/** For each of `size` pixels the two of `given` that it lies between, and how far from the first. */
const places = (given, size) =>
  Array.from({ length: size }, (_, index) => {
    const place = Math.min(Math.max((index + 0.5) * (given / size) - 0.5, 0), given - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, given - 1), place - low];
  });

/** The classes as colours on the picture, and their shares of it in a list; the first class is the background. */
export function show({ numbers, width, height }, { labels, options: { classes } }, { result, overlay }) {
  const counts = new Uint32Array(classes);
  const palette = Array.from({ length: classes }, (_, label) => (label ? rgb(color(label)) : [0, 0, 0, 0]));
  const image = new ImageData(width, height);
  numbers.forEach((label, index) => {
    counts[label]++;
    image.data.set(palette[label], 4 * index);
  });
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(image, 0, 0);
  const context = overlay.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.globalAlpha = OPACITY;
  context.drawImage(small, 0, 0, overlay.width, overlay.height);
  const found = [...counts.keys()].filter((label) => counts[label]).sort((one, other) => counts[other] - counts[one]);
  list(result, found.map((label) => ({
    name: labels?.[label] ?? `class ${label}`,
    score: counts[label] / numbers.length,
    color: label ? color(label) : "transparent",
  })));
}

/** A colour of CSS as the bytes of a pixel. */
function rgb(text) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}
