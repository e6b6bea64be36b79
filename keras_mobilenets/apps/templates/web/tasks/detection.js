// Where in a picture things are, and of which class.

import { color, list } from "../list.js";

const LISTED = 12;

/** Boxes, best first: { box: [top, left, bottom, right] in shares of the picture, label, score } each. */
export function answer(outputs, { options }) {
  if (outputs.count) return chosen(outputs, options);
  const { values: encoded } = outputs.boxes;
  const { values: scores, shape } = outputs.scores;
  const columns = shape.at(-1);
  const first = columns - options.classes; // the background's column, if there is one
  const candidates = [];
  for (let anchor = 0; anchor < options.anchors.length; anchor++) {
    const own = [...scores.subarray(anchor * columns + first, (anchor + 1) * columns)];
    const best = own.indexOf(Math.max(...own));
    own.forEach((score, label) => {
      if (score >= Math.max(options.sure, options.least_score) && (options.by_class || label === best)) {
        candidates.push({ box: decode(encoded.subarray(4 * anchor, 4 * anchor + 4), options.anchors[anchor], options.scales), label, score });
      }
    });
  }
  return suppress(candidates, options);
}

/** What the operation TFLite_Detection_PostProcess inside of the file has chosen. */
function chosen({ boxes, labels, scores, count }, { sure }) {
  return Array.from({ length: count.values[0] }, (_, index) => ({
    box: [...boxes.values.slice(4 * index, 4 * index + 4)],
    label: labels.values[index],
    score: scores.values[index],
  })).filter(({ score }) => score >= sure);
}

function decode([y, x, height, width], [top, left, high, wide], [ofY, ofX, ofHeight, ofWidth]) {
  const middle = [(y / ofY) * high + top, (x / ofX) * wide + left];
  const half = [0.5 * Math.exp(height / ofHeight) * high, 0.5 * Math.exp(width / ofWidth) * wide];
  return [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]];
}

/** The best boxes, without those that lie over a better one: of the same class, or of any. */
function suppress(candidates, { most, most_overlap, by_class }) {
  const kept = [];
  for (const one of candidates.sort((a, b) => b.score - a.score)) {
    const covered = kept.some(({ box, label }) => (!by_class || label === one.label) && overlap(box, one.box) > most_overlap);
    if (!covered && kept.length < most) kept.push(one);
  }
  return kept;
}

function overlap(one, other) {
  const high = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const wide = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const shared = Math.max(high, 0) * Math.max(wide, 0);
  const area = ([top, left, bottom, right]) => (bottom - top) * (right - left);
  return shared / (area(one) + area(other) - shared);
}

/** The boxes on the picture, and in a list. */
export function show(boxes, { labels }, { result, overlay }) {
  const context = overlay.getContext("2d");
  const { width, height } = overlay;
  context.lineWidth = Math.max(width / 250, 2);
  context.font = `600 ${Math.max(width / 40, 14)}px system-ui, sans-serif`;
  context.textBaseline = "top";
  const name = (label) => labels?.[label] ?? `class ${label}`;
  for (const { box: [top, left, bottom, right], label } of boxes) {
    const [x, y] = [left * width, top * height];
    context.strokeStyle = context.fillStyle = color(label);
    context.strokeRect(x, y, (right - left) * width, (bottom - top) * height);
    const [wide, high] = [context.measureText(name(label)).width + 8, Math.max(width / 40, 14) + 6];
    const above = Math.max(y - high, 0);
    context.fillRect(x, above, wide, high);
    context.fillStyle = "white";
    context.fillText(name(label), x + 4, above + 3);
  }
  const listed = boxes.slice(0, LISTED).map(({ label, score }) => ({ name: name(label), score, color: color(label) }));
  const more = boxes.length - listed.length;
  list(result, listed, more ? `and ${more} more` : boxes.length ? "" : "Nothing found.");
}
