(() => {
  // One player for each episode: its slider moves all cameras, all plots and their numbers.
  for (const episode of document.querySelectorAll(".episode")) {
    const data = JSON.parse(episode.querySelector("script").textContent);
    const [player, button, slider, told] = [".player", ".player button", ".player input", ".player output"]
      .map((name) => episode.querySelector(name));
    const frames = [...episode.querySelectorAll(".frame")];
    const plots = [...episode.querySelectorAll(".plot")];
    let timer = 0;
    const show = (step) => {
      slider.value = step;
      told.value = `step ${step} of ${data.length}, ${(step * data.period).toFixed(2)} s`;
      data.cameras.forEach((camera, number) => {
        // The last frame that is not later: what the robot had seen.
        let place = camera.steps.findIndex((at) => at > step);
        place = (place < 0 ? camera.steps.length : place) - 1;
        frames[number].src = camera.frames[place];
      });
      const x = data.left + data.across * step / Math.max(1, data.length - 1);
      plots.forEach((plot, number) => {
        const cursor = plot.querySelector(".cursor");
        cursor.setAttribute("x1", x);
        cursor.setAttribute("x2", x);
        plot.querySelector("output").value = data.values[number][step];
      });
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.textContent = "▶";
    };
    button.addEventListener("click", () => {
      if (timer) return stop();
      button.textContent = "❚❚";
      timer = setInterval(() => show((Number(slider.value) + 1) % data.length), 1000 * data.period);
    });
    slider.addEventListener("input", () => show(Number(slider.value)));
    for (const one of episode.querySelectorAll(".strip img"))
      one.addEventListener("click", () => { stop(); show(Number(one.dataset.step)); });
    episode.classList.add("scripted");
    player.hidden = false;
    show(0);
  }
})();
