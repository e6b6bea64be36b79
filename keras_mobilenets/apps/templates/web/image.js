// From a picture to the pixels that the model sees: the same ones, to the bit, as `read_image` of keras_mobilenets makes.

const CROP_FRACTION = 0.875; // of the short side, as the published accuracies of MobileNets were measured
const EDGE_TO_EDGE = 64; // pictures up to this short side are filled by their object: never cropped
const LARGEST = 4096; // side of a canvas that every phone has memory for; what is larger, the browser reduces first
const BITS = 22; // of the fractions by which Pillow weighs pixels

/** A file as a picture: upright, in its own numbers, not those of a screen's colours. */
export async function open(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "This"} is not a picture that this browser can read.`);
  }
}

export const sizeOf = (source) => [source.videoWidth || source.width, source.videoHeight || source.height];

/** The part of a picture that the model sees, as [left, top, width, height]. */
export function boxOf([width, height], { width: wide, height: high }, crops) {
  if (!crops) return [0, 0, width, height];
  const aspect = wide / high;
  const fraction = Math.min(width, height) > EDGE_TO_EDGE ? CROP_FRACTION : 1;
  const boxWidth = roundEven(Math.min(width, height * aspect) * fraction);
  const boxHeight = roundEven(Math.min(height, width / aspect) * fraction);
  const [left, top] = [Math.floor((width - boxWidth) / 2), Math.floor((height - boxHeight) / 2)];
  return [left, top, Math.max(boxWidth, 1), Math.max(boxHeight, 1)];
}

/** The pixels of a box of a picture at the model's size: red, green and blue by rows, or grey. */
export function pixelsOf(source, box, { width, height, channels }) {
  const shrink = Math.min(1, LARGEST / Math.max(box[2], box[3]));
  const [wide, high] = [Math.max(Math.round(box[2] * shrink), 1), Math.max(Math.round(box[3] * shrink), 1)];
  const context = new OffscreenCanvas(wide, high).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // shows through what is transparent
  context.fillRect(0, 0, wide, high);
  context.drawImage(source, ...box, 0, 0, wide, high);
  const { data } = context.getImageData(0, 0, wide, high);
  // The order of Pillow 13; before, rows came first always, which moves some pixels by one level.
  const columnsFirst = high > height && high - height > 2 * (wide - width);
  const pixels = columnsFirst
    ? resizeRows(resizeColumns(data, wide, high, 4, height), wide, height, 4, width)
    : resizeColumns(resizeRows(data, wide, high, 4, width), width, high, 3, height);
  return channels === 1 ? grey(pixels) : pixels;
}

/** For each of `size` pixels the first of the `from` that it is a mean of, and their weights: Pillow's bilinear filter. */
function weights(from, size) {
  const scale = from / size;
  const support = Math.max(scale, 1);
  return Array.from({ length: size }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), from);
    const shares = [];
    for (let at = first; at < last; at++) shares.push(Math.max(1 - Math.abs((at - centre + 0.5) / support), 0));
    const sum = shares.reduce((one, other) => one + other, 0);
    return [first, Int32Array.from(shares, (share) => Math.trunc((share / sum) * 2 ** BITS + 0.5))];
  });
}

/** Red, green and blue of the `step` numbers for each pixel. */
function resizeRows(data, width, height, step, size) {
  const result = new Uint8Array(size * height * 3);
  weights(width, size).forEach(([first, shares], x) => {
    for (let y = 0; y < height; y++) {
      let [red, green, blue] = [HALF, HALF, HALF];
      for (let k = 0, at = (y * width + first) * step; k < shares.length; k++, at += step) {
        red += data[at] * shares[k];
        green += data[at + 1] * shares[k];
        blue += data[at + 2] * shares[k];
      }
      result.set([red >> BITS, green >> BITS, blue >> BITS], (y * size + x) * 3);
    }
  });
  return result;
}

/** Of `step` numbers for each pixel, as many as before. */
function resizeColumns(data, width, height, step, size) {
  const [row, result] = [width * step, new Uint8Array(width * size * step)];
  weights(height, size).forEach(([first, shares], y) => {
    for (let x = 0; x < row; x++) {
      let sum = HALF;
      for (let k = 0, at = first * row + x; k < shares.length; k++, at += row) sum += data[at] * shares[k];
      result[y * row + x] = sum >> BITS;
    }
  });
  return result;
}

const HALF = 1 << (BITS - 1);

const grey = (pixels) =>
  Uint8Array.from({ length: pixels.length / 3 }, (_, index) =>
    Math.round(0.299 * pixels[3 * index] + 0.587 * pixels[3 * index + 1] + 0.114 * pixels[3 * index + 2]));

/** As Python rounds: a half to the even side. */
export function roundEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}
