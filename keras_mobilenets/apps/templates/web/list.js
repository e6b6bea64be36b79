// What the tasks show alike: a list of names with a share for each, and colours.

/** A colour for each class, far from those of its neighbours. */
export const color = (label) => `hsl(${(label * 137.5) % 360} 70% 42%)`;

/** Names with their scores in [0, 1], and a bar for each; a line below them. */
export function list(result, items, below = "") {
  const found = document.createElement("ol");
  for (const { name, score, color } of items) {
    const [item, text, share, bar] = ["li", "span", "b", "i"].map((tag) => document.createElement(tag));
    text.textContent = name;
    share.textContent = `${(score * 100).toFixed(1)} %`;
    bar.style.setProperty("--share", score);
    if (color) bar.style.setProperty("--blue", color);
    item.append(text, share, bar);
    found.append(item);
  }
  result.replaceChildren(found, Object.assign(document.createElement("p"), { textContent: below, hidden: !below }));
}
