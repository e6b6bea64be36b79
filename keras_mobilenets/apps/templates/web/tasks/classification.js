// Which of some classes a picture shows.

import { list } from "../list.js";

const SHOWN = 5;

/** A probability for each class. */
export function answer(outputs, { options }) {
  const [{ values }] = Object.values(outputs);
  const scores = options.from_logits ? (options.multi_label || values.length === 1 ? sigmoid : softmax)(values) : values;
  return scores.length === 1 ? [1 - scores[0], scores[0]] : [...scores];
}

/** The likeliest classes. */
export function show(scores, { labels }, { result }) {
  const first = scores.map((score, index) => ({ name: labels?.[index] ?? `class ${index}`, score, index }));
  list(result, first.sort((one, other) => other.score - one.score || one.index - other.index).slice(0, SHOWN));
}

const sigmoid = (values) => values.map((value) => 1 / (1 + Math.exp(-value)));

function softmax(values) {
  const most = values.reduce((one, other) => Math.max(one, other));
  const powers = Array.from(values, (value) => Math.exp(value - most));
  const sum = powers.reduce((one, other) => one + other);
  return powers.map((power) => power / sum);
}
