// The real one tells browsers apart across domains. On one machine there is nothing to add to that.
window.KMCID = window.KMCID || "";
