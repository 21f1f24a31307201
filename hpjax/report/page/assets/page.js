// Brings the page to life: figures are drawn when they come near the screen, and again in the other scheme.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const drawn = new Map();
  let queue = Promise.resolve();

  function draw(plot) {
    const figure = data.figures[plot.dataset.figure];
    drawn.set(plot, true);
    queue = queue.then(() => drawFigure(plot, figure, data)).catch((error) => {
      plot.textContent = "This figure can't be drawn here; its data stands below.";
      console.error(plot.dataset.figure, error);
    });
    return queue;
  }

  const plots = [...document.querySelectorAll(".plot")];
  makeTable(data);
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      if (!drawn.has(entry.target)) draw(entry.target);
    }
  }, { rootMargin: "400px" });
  plots.forEach((plot) => near.observe(plot));
  // The others in idle moments, so that they can be printed and searched at once.
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
  (function rest() {
    const next = plots.find((plot) => !drawn.has(plot));
    if (next) idle(() => (drawn.has(next) ? queue : draw(next)).then(rest));
    else queue.then(() => document.body.setAttribute("data-drawn", "all"));
  })();
  scheme.addEventListener("change", () => plots.filter((plot) => drawn.has(plot)).forEach(draw));

  for (const details of document.querySelectorAll("details.data")) {
    details.addEventListener("toggle", () => {
      const wide = details.querySelector(".wide");
      if (details.open && !wide.firstChild) wide.append(...tabulate(data.figures[details.parentElement.id], data));
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.copy);
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
    });
  }
})();
