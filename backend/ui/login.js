"use strict";

const form = document.querySelector("form");
const field = document.querySelector("#token");
const said = document.querySelector("#said");

async function logIn(token) {
  said.textContent = "…";
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (answer.ok) {
      location.replace("/docs");
      return;
    }
    const problem = await answer.json();
    said.textContent = problem.detail ?? problem.title ?? "This did not work.";
  } catch {
    said.textContent = "The server does not answer.";
  }
  field.value = "";
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(field.value.trim());
});

// The token comes behind the #, which browsers keep to themselves; it must not stay in the history either.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (location.hash) {
  history.replaceState(null, "", location.pathname);
}
if (given) {
  logIn(given);
} else {
  // Who comes by a link of another site sends no cookie at first; this request of our own page does.
  fetch("/health").then((answer) => {
    if (answer.ok) {
      location.replace("/docs");
    }
  }, () => {});
}
