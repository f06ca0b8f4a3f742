"use strict";

const cards = [...document.querySelectorAll(".card")];
const toolbar = document.querySelector(".toolbar");
const search = document.querySelector("#search");
const status = document.querySelector("#status");
const empty = document.querySelector(".empty");
const chosen = { family: "", state: "" };

function matches(card) {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  return (
    (!chosen.family || card.dataset.family === chosen.family) &&
    (!chosen.state || card.dataset.states.split("|").includes(chosen.state)) &&
    words.every((word) => card.dataset.text.includes(word))
  );
}

function update() {
  let visible = 0;
  for (const card of cards) {
    card.hidden = !matches(card);
    visible += card.hidden ? 0 : 1;
  }
  for (const button of toolbar.querySelectorAll("button[data-group]")) {
    button.setAttribute("aria-pressed", String(chosen[button.dataset.group] === button.dataset.value));
  }
  status.textContent =
    visible === cards.length ? `All ${cards.length} systems` : `${visible} of ${cards.length} systems`;
  empty.hidden = visible > 0 || cards.length === 0;
}

function clear() {
  chosen.family = chosen.state = search.value = "";
  update();
}

function selectText(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    selectText(code); // a browser that keeps the clipboard from us: the reader's own key does it
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1600);
}

toolbar.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-group]");
  if (!button) return;
  const { group, value } = button.dataset;
  chosen[group] = chosen[group] === value ? "" : value;
  update();
});
search.addEventListener("input", update);
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
});
document.querySelector("#clear").addEventListener("click", clear);
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

// A link to one card must not lead to a hidden one, and without scripts all cards show and no dead controls do.
window.addEventListener("hashchange", clear);
toolbar.hidden = false;
update();
