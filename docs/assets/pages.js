// The theme leaves its search, a dialog, without a name.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
