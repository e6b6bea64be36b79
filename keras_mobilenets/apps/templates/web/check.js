// A page that is opened as a file may load no modules: this plain script is all that runs, and says so.
if (location.protocol === "file:") {
  document.getElementById("outdated").hidden = false;
  document.getElementById("status").textContent = "";
}
