// A page of tables and charts: runs side by side, a sweep, a comparison.
const data = JSON.parse(document.getElementById("data").textContent);
for (const [id, options] of Object.entries(data.charts)) {
  for (const each of options.series || []) if (each.links) each.pick = (i) => { if (each.links[i]) location.href = each.links[i]; };
  keep(id, () => options);
}

const numberOf = (cell) => (cell.dataset.number === undefined ? null : Number(cell.dataset.number));
function ordered(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  return x === y ? a.textContent.localeCompare(b.textContent, undefined, { numeric: true }) : x === null ? 1 : -1;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => sign * ordered(a.cells[column], b.cells[column])));
    });
    head.replaceChildren(button);
    head.classList.toggle("number", [...body.rows].filter((row) => numberOf(row.cells[column]) !== null).length > body.rows.length / 2);
  });
}
