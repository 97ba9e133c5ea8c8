(() => {
  // Videos play while they can be seen, and rest otherwise: a phone cannot play them all.
  const videos = document.querySelectorAll("video");
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) target.play().catch(() => {});
        else target.pause();
      }
    }, { threshold: 0.3 });
    videos.forEach((video) => watch.observe(video));
  }
  const form = document.querySelector("form.filter");
  if (!form) return;
  const items = [...document.querySelectorAll("[data-outcome]")];
  const folded = document.querySelectorAll("#rollouts details");
  const filter = () => {
    const outcome = form.elements.outcome.value, condition = form.elements.condition.value;
    let shown = 0;
    for (const item of items) {
      const other = item.dataset.outcome !== "success";
      item.hidden = !((!outcome || (outcome === "other" ? other : item.dataset.outcome === outcome))
        && (!condition || item.dataset.condition === condition));
      shown += !item.hidden && item.tagName === "TR";
    }
    // Nothing that was asked for stays folded away.
    if (outcome || condition) folded.forEach((one) => { one.open = true; });
    form.elements.count.value = `${shown} of ${items.filter((i) => i.tagName === "TR").length} rollouts`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  filter();
})();
