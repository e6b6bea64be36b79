// How alike two pictures are, by the cosine of their vectors.

let kept = null; // the vector to compare with

/** The vector, of length 1. */
export function answer(outputs) {
  const [{ values }] = Object.values(outputs);
  const length = Math.hypot(...values) || 1;
  return [...values].map((value) => value / length);
}

export function show(vector, about, { result, picture }) {
  kept ??= keep(vector, picture);
  const cosine = vector.reduce((sum, value, index) => sum + value * kept.vector[index], 0);
  const [said, button] = [document.createElement("p"), document.createElement("button")];
  said.className = "said";
  said.textContent = kept.vector === vector ? "Kept. Choose another picture to compare it with." : `Cosine ${cosine.toFixed(3)} with the picture that was kept:`;
  button.type = "button";
  button.textContent = "Keep this picture instead";
  button.hidden = kept.vector === vector;
  button.onclick = () => {
    kept = keep(vector, picture);
    show(vector, about, { result, picture });
  };
  result.replaceChildren(said, kept.image, button);
}

/** A small copy of the picture beside its vector. */
function keep(vector, picture) {
  const image = document.createElement("canvas");
  image.height = 120;
  image.width = Math.max(Math.round((120 * picture.width) / picture.height), 1);
  image.getContext("2d").drawImage(picture, 0, 0, image.width, image.height);
  image.role = "img";
  image.ariaLabel = "The picture that was kept";
  return { vector, image };
}
