// Classes and their probabilities as a list of bars.
export const percent = (value) => `${(100 * value).toFixed(value > 0.995 || value < 0.005 ? 1 : 0)} %`;

// Rows are {name, share, colour?}; a share of null is that of "none of these", which has no bar.
export function fillBars(list, rows) {
  list.replaceChildren(...rows.map(({ name, share, colour }) => {
    const row = document.createElement("li");
    const parts = ["name", "bar", "share"].map((part) => {
      const element = document.createElement("span");
      element.className = part;
      return row.appendChild(element);
    });
    row.classList.toggle("none", share === null);
    parts[0].textContent = parts[0].title = name;
    const bar = parts[1].appendChild(document.createElement("span"));
    bar.style.width = `${100 * (share ?? 0)}%`;
    if (colour) bar.style.background = colour;
    parts[2].textContent = share === null ? "" : percent(share);
    return row;
  }));
}
