"use strict";
// Tables of class "data" get sorting, long ones a search field; nothing else. Without scripts the page is complete.
(function () {
  function key(cell) {
    var shown = cell ? cell.dataset.sort || cell.textContent : "";
    var text = shown.trim().replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1");
    var number = /^[<+]?\s*(-?\d+(\.\d+)?)/.exec(text);
    return { text: text.toLowerCase(), number: number ? parseFloat(number[1]) : null };
  }
  function compare(a, b, down) {
    if ((a.number === null) !== (b.number === null)) { return a.number === null ? 1 : -1; }
    var order = a.number !== null ? a.number - b.number : a.text < b.text ? -1 : a.text > b.text ? 1 : 0;
    return down ? -order : order;
  }
  function sort(table, head, index) {
    var down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    var body = table.tBodies[0];
    Array.from(body.rows).map(function (row) { return { row: row, key: key(row.cells[index]) }; })
      .sort(function (a, b) { return compare(a.key, b.key, down); })
      .forEach(function (item) { body.appendChild(item.row); });
  }
  function sortable(table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (head, index) {
      if (!head.textContent.trim()) { return; }
      var button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      while (head.firstChild) { button.appendChild(head.firstChild); }
      head.appendChild(button);
      button.addEventListener("click", function () { sort(table, head, index); });
    });
  }
  function searchable(table) {
    var rows = Array.from(table.tBodies[0].rows);
    if (rows.length < 15) { return; }
    var field = document.createElement("input"), count = document.createElement("output"), bar = document.createElement("p");
    field.type = "search";
    field.placeholder = "Search this table";
    field.setAttribute("aria-label", "Search this table");
    bar.className = "search";
    bar.append(field, " ", count);
    field.addEventListener("input", function () {
      var words = field.value.toLowerCase().split(/\s+/).filter(Boolean), n = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.includes(word); });
        n += row.hidden ? 0 : 1;
      });
      count.textContent = words.length ? n + " of " + rows.length + " rows" : "";
    });
    table.parentNode.before(bar);
  }
  document.querySelectorAll("table.data").forEach(function (table) { sortable(table); searchable(table); });
  var boxes = Array.from(document.querySelectorAll(".scroll"));
  function hint() {
    boxes.forEach(function (box) { box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1); });
  }
  hint();
  window.addEventListener("resize", hint);
  document.addEventListener("toggle", hint, true);
})();
