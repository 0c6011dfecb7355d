"use strict";
// A column's button sorts the table by it, and a second press turns the order; cells without a number come last.
const table = document.getElementById("sortable");
const heads = [...table.tHead.rows[0].cells];

function sortBy(column) {
  const head = heads[column];
  const up = head.getAttribute("aria-sort") !== "ascending";
  const numeric = table.tBodies[0].rows[0]?.cells[column].dataset.value !== undefined;
  const key = (row) => {
    const cell = row.cells[column];
    return numeric ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!numeric) return (up ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return up ? x - y : y - x;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  document.getElementById("sorted").textContent =
    `sorted by ${head.textContent.trim()}, ${up ? "ascending" : "descending"}`;
}

heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sortBy(column)));
