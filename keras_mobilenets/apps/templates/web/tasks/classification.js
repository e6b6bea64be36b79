// Which of some classes a picture shows.

export const fit = "crop"; // the model sees the middle of a picture
const SHOWN = 5;

/** A probability for each class. */
export function answer(outputs, { options }) {
  const [{ values }] = Object.values(outputs);
  const scores = options.from_logits ? (options.multi_label || values.length === 1 ? sigmoid : softmax)(values) : values;
  return scores.length === 1 ? [1 - scores[0], scores[0]] : [...scores];
}

/** The likeliest classes, with a bar for each. */
export function show(scores, { labels }, { result }) {
  const first = scores.map((score, index) => [score, index]).sort((one, other) => other[0] - one[0] || one[1] - other[1]);
  const list = document.createElement("ol");
  for (const [score, index] of first.slice(0, SHOWN)) {
    const [item, name, share, bar] = ["li", "span", "b", "i"].map((tag) => document.createElement(tag));
    name.textContent = labels?.[index] ?? `class ${index}`;
    share.textContent = `${(score * 100).toFixed(1)} %`;
    bar.style.setProperty("--share", score);
    item.append(name, share, bar);
    list.append(item);
  }
  result.replaceChildren(list);
}

const sigmoid = (values) => values.map((value) => 1 / (1 + Math.exp(-value)));

function softmax(values) {
  const most = values.reduce((one, other) => Math.max(one, other));
  const powers = Array.from(values, (value) => Math.exp(value - most));
  const sum = powers.reduce((one, other) => one + other);
  return powers.map((power) => power / sum);
}
