
"use strict";
// The page is complete without this: it only filters, and opens what a link leads to.
const filter = document.getElementById("filter");
const operations = [...document.querySelectorAll(".operation")].map((element) => ({
  element,
  link: document.querySelector(`nav a[href="#${CSS.escape(element.id)}"]`)?.parentElement,
  text: element.querySelector("summary").textContent.toLowerCase() + " " + element.id.toLowerCase(),
}));
filter.hidden = false;
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const { element, link, text } of operations) {
    const isHidden = !words.every((word) => text.includes(word));
    element.hidden = isHidden;
    if (link) link.hidden = isHidden;
  }
});
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", open);
open();
