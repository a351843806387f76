// Dark, light, or as the machine has it; the choice is kept in this browser.

import { h } from "./dom.js";

const NEXT = { auto: "dark", dark: "light", light: "auto" };
const SIGN = { auto: "◐", dark: "☾", light: "☀" };

/** Let a button switch the theme. */
export function startTheme(button) {
  set(stored());
  button.addEventListener("click", () => {
    const theme = NEXT[stored()];
    try {
      localStorage.setItem("theme", theme);
    } catch {
      document.documentElement.dataset.chosen = theme; // where nothing may be stored, it lasts as long as the page
    }
    set(theme);
  });

  function set(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.replaceChildren(h("span", { "aria-hidden": "true" }, SIGN[theme]));
    button.setAttribute("aria-label", `Theme: ${theme}. Switch to ${NEXT[theme]}`);
    button.title = `Theme: ${theme}`;
  }
}

function stored() {
  try {
    const theme = localStorage.getItem("theme");
    return theme in NEXT ? theme : "auto";
  } catch {
    return document.documentElement.dataset.chosen ?? "auto";
  }
}
