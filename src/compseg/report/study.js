// A page of tables and charts: runs side by side, a sweep, a comparison.
const data = JSON.parse(document.getElementById("data").textContent);
for (const [id, options] of Object.entries(data.charts)) {
  for (const each of options.series || []) if (each.links) each.pick = (i) => { if (each.links[i]) location.href = each.links[i]; };
  keep(id, () => options);
}
